// trainer/loop/fingerprint.h -- what must be equal for a resumed run to give the same bits.
#pragma once

#include <map>
#include <string>

#include "kernels/tensor/context.h"

namespace sluice {

// build (compiler and flags of this file), CPU model, BLAS with the kernel that it chose, device.
std::map<std::string, std::string> fingerprint(const Context& ctx);

}  // namespace sluice
