// kernels/muon/muon.cpp -- the contract, checked once for every back end.
#include "kernels/muon/muon.h"

#include <algorithm>

#include "kernels/gemm/cuda_gemm.h"
#include "kernels/muon/scratch.h"

namespace sluice {

namespace cuda {
void muon(const Context& ctx, const Muon& a, const MuonScratch& scratch);
}
namespace cpu {
void muon(const Context& ctx, const Muon& a, const MuonScratch& scratch);
}
namespace reference {
void muon(const Context& ctx, const Muon& a, const MuonScratch& scratch);
}

void muon(const Context& ctx, const Muon& a) {
  const int64_t B = a.param.dim(0), m = a.param.dim(1), n = a.param.dim(2);
  check_shape(a.param, "param", {B, m, n}, a.param.dtype, ctx.device);
  check_shape(a.grad, "grad", {B, m, n}, a.param);
  check_shape(a.m, "m", {B, m, n}, a.param);
  SLUICE_CHECK(a.param.dense() && a.grad.dense() && a.m.dense(), "matrices have gaps");
  SLUICE_CHECK(a.momentum >= 0 && a.momentum < 1, "momentum is ", a.momentum);
  SLUICE_CHECK(a.ns_steps >= 1, "ns_steps is ", a.ns_steps);
  const bool on_cuda = ctx.device == Device::cuda;
  if (a.copy) {
    SLUICE_CHECK(on_cuda, "a rounded copy is for CUDA");
    check_shape(a.copy, "copy", {B, m, n}, DType::bf16, ctx.device);
    SLUICE_CHECK(a.copy.dense(), "matrices have gaps");
  }
  const int64_t G = muon_matrices(ctx.device, B, m, n), s = std::min(m, n);
  const DType T = on_cuda ? DType::bf16 : a.param.dtype;
  const ArenaTensor x = scratch(ctx, T, {G, m, n}), y = scratch(ctx, T, {G, m, n}),
                    gram = scratch(ctx, T, {G, s, s}), poly = scratch(ctx, T, {G, s, s}),
                    squares = on_cuda ? scratch(ctx, DType::f64, {G, kMuonParts}) : ArenaTensor(),
                    workspace = gemm_workspace(ctx);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  const MuonScratch memory{x, y, gram, poly, squares, workspace};
  SLUICE_DISPATCH(muon, ctx, a, memory);
}

}  // namespace sluice
