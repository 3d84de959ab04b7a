// kernels/tensor/fill.h -- setting memory, in stream order; nothing in plan mode.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

void zero(const Context& ctx, const Tensor& t);  // rows of a 2-D tensor may be strided
void set_scalar(const Context& ctx, const Tensor& t, double value);  // t [1] f64

}  // namespace sluice
