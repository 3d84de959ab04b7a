// kernels/kda/cuda_general.h -- the CUDA back end for head dims that the tensor cores' kernels are
// not made for (kernels/chunks/cuda_general.cuh).
#pragma once

#include "kernels/kda/saved.h"

namespace sluice::cuda::kda_gpu {

inline bool on_tensor_cores(const kda::Sizes& s) {
  return s.K == s.V && (s.K == 64 || s.K == 128);
}

int64_t general_workspace_bytes(const kda::Sizes& s, bool keeps);
int64_t general_backward_bytes(const kda::Sizes& s);
void general_forward(const Context& ctx, const KdaForward& a, const kda::Sizes& s,
                     const Tensor& workspace);
void general_backward(const Context& ctx, const KdaBackward& a, const kda::Sizes& s,
                      const Tensor& memory);

}  // namespace sluice::cuda::kda_gpu
