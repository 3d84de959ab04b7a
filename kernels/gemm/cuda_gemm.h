// kernels/gemm/cuda_gemm.h -- matrix products on the GPU, by cuBLASLt.
//
//   c[M,N] = op(a)[M,K] op(b)[K,N]      or added to c; row-major bf16 operands, f32 sums, c bf16 or
//   f32
//
// The algorithm comes from the library's heuristic, asked once for every kind of call (shape,
// strides, alignment): never from a timing, so equal runs make equal bits.
#pragma once

#include <memory>

#include "kernels/gemm/gemm.h"
#include "kernels/tensor/context.h"

namespace sluice {

class CudaGemm {
 public:
  CudaGemm();
  ~CudaGemm();

  // Rows may be strided. M, N or K may be 0. `workspace` is what gemm_workspace() gave.
  void run(const Context& ctx, Transpose transpose_a, const Tensor& a, Transpose transpose_b,
           const Tensor& b, const Grad& c, const Tensor& workspace);

  // d = alpha op(a) op(b) + beta c for each of B matrices: a, b, c, d [B, rows, columns], dense; c
  // may be d.
  struct Batch {
    Transpose transpose_a;
    Tensor a;
    Transpose transpose_b;
    Tensor b;
    double alpha, beta;
    Tensor c, d;
  };
  void run(const Context& ctx, const Batch& batch, const Tensor& workspace);

  static const char* library();  // "cuBLASLt 130100": part of the fingerprint of a run

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// For ops that call it, taken where scratch is; on the CPU none.
constexpr int64_t kGemmWorkspaceBytes = int64_t(32) << 20;
inline ArenaTensor gemm_workspace(const Context& ctx) {
  if (ctx.device != Device::cuda) return {};
  return scratch(ctx, DType::u8, {kGemmWorkspaceBytes}, Purpose::workspace);
}

}  // namespace sluice
