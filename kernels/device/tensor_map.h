// kernels/device/tensor_map.h -- what the copy engine of a Hopper GPU needs to know of a tensor, to
// bring boxes of it into shared memory.
#pragma once

#include <cuda.h>

#include <initializer_list>

#include "kernels/tensor/tensor.h"

namespace sluice {

// Of a bf16 tensor of rank 2 or 3 on the GPU that starts on 16 bytes, as do its rows. A box has
// 64 elements of the last dimension, as rows of 128 bytes of which the 16-byte pieces are permuted
// by the row (kernels/device/wgmma.cuh), and `rows` of the one before it. What lies outside of the
// tensor reads as zeros.
CUtensorMap tensor_map(const Tensor& t, int rows);

}  // namespace sluice
