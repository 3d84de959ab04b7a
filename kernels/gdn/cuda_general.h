// kernels/gdn/cuda_general.h -- the CUDA back end for head dims that the tensor cores' kernels are
// not made for (kernels/chunks/cuda_general.cuh).
#pragma once

#include "kernels/gdn/saved.h"

namespace sluice::cuda::gdn_gpu {

inline bool on_tensor_cores(const gdn::Sizes& s) {
  return s.K == s.V && (s.K == 64 || s.K == 128);
}

int64_t general_workspace_bytes(const gdn::Sizes& s, bool keeps);
int64_t general_backward_bytes(const gdn::Sizes& s);
void general_forward(const Context& ctx, const GdnForward& a, const gdn::Sizes& s,
                     const Tensor& workspace);
void general_backward(const Context& ctx, const GdnBackward& a, const gdn::Sizes& s,
                      const Tensor& memory);

}  // namespace sluice::cuda::gdn_gpu
