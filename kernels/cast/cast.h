// kernels/cast/cast.h -- to[i] = from[i] rounded to bf16, to nearest, ties to even.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct Cast {
  Tensor from;  // in  [n] f32
  Tensor to;    // out [n] bf16
};

void cast(const Context& ctx, const Cast& a);

}  // namespace sluice
