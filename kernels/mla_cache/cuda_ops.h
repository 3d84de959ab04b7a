// kernels/mla_cache/cuda_ops.h -- the steps of the CUDA back end.
#pragma once

#include "kernels/mla_cache/cuda.cuh"

namespace sluice::cuda::mla_cache_gpu {

// q [N, H, r + rope] = W_UK^T q_n and q_r, rotated.
void absorb(const Context& ctx, const MlaCached& a, const Problem& p, const Tensor& q);
// o = W_UV of each head's sum of latents [N, H, r].
void values(const Context& ctx, const MlaCached& a, const Problem& p, const Tensor& sums);

// The rope slices of N rows' queries, H of them `head` elements apart, rotated if p says so.
void turn(const Context& ctx, const Problem& p, int64_t N, const bf16* from, int64_t from_row,
          int from_head, bf16* to, int64_t to_row, int to_head);

}  // namespace sluice::cuda::mla_cache_gpu
