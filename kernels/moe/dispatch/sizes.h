// kernels/moe/dispatch/sizes.h -- scratch of the CUDA back end's sort.
#pragma once

#include <cstdint>

namespace sluice {

constexpr int64_t kDispatchPart = 512;  // choices that are counted on their own

}  // namespace sluice
