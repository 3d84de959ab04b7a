// kernels/kda/cuda_ops.h -- the steps of the CUDA back end, in the order that they run.
#pragma once

#include "kernels/kda/cuda.cuh"

namespace sluice::cuda::kda_gpu {

// The table of chunks.
void number_chunks(const Context& ctx, const Tensor& cu_seqlens, const kda::Sizes& s,
                   const Memory& m);
// Q+, K+, W, R, gamma and (I + L)^-1 of every chunk.
void prepare(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m);
// O, the final states; E and S of every chunk.
void scan(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m);

// dv, the gradient of the initial states; X and D of every chunk.
void scan_backward(const Context& ctx, const KdaBackward& a, const kda::Sizes& s, const Memory& m,
                   const BackwardMemory& b);
// All other gradients.
void gradients(const Context& ctx, const KdaBackward& a, const kda::Sizes& s, const Memory& m,
               const BackwardMemory& b);

}  // namespace sluice::cuda::kda_gpu
