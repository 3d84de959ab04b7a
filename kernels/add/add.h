// kernels/add/add.h -- y = a + b; backward hands dy to both. Dense tensors of equal shape.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct AddForward {
  Tensor a, b;  // in  [...] T
  Tensor y;     // out [...] T
};
struct AddBackward {
  Tensor dy;    // in  [...] T
  Grad da, db;  // out [...] T; the same memory for both if a and b are one value: then db adds
};

void add_forward(const Context& ctx, const AddForward& a);
void add_backward(const Context& ctx, const AddBackward& a);

}  // namespace sluice
