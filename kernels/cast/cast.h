// kernels/cast/cast.h -- to[i] = from[i] rounded to bf16, to nearest, ties to even; and bf16 as
// f32.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct Cast {
  Tensor from;  // in  [n] f32
  Tensor to;    // out [n] bf16
};

void cast(const Context& ctx, const Cast& a);

struct Widen {
  Tensor from;  // in  [n] bf16
  Tensor to;    // out [n] f32
};

void widen(const Context& ctx, const Widen& a);

}  // namespace sluice
