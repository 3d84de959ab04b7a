// kernels/tensor/fill.h -- setting and copying memory, in stream order; nothing in plan mode. A
// captured graph may have all of them.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

void zero(const Context& ctx, const Tensor& t);  // rows of a 2-D tensor may be strided
// Dense tensors of one dtype and size, to or within the context's device. What is read on the host
// may change when the call returns.
void copy_in_order(const Context& ctx, const Tensor& from, const Tensor& to);
void set_scalar(const Context& ctx, const Tensor& t, double value);  // t [1] f64

// Equal bytes, dense. Memory of the host must be pinned (kernels/device/pinned.h) where the other
// side is a GPU's, and stay as it is until the stream is past the copy.
void copy_async(const Context& ctx, const Tensor& from, const Tensor& to);

}  // namespace sluice
