// kernels/muon/muon.cpp -- the contract, checked once for every back end, and the whole of the
// parts.
#include "kernels/muon/muon.h"

#include "kernels/gemm/cuda_gemm.h"
#include "kernels/muon/scratch.h"

namespace sluice {

namespace cuda {
void muon_momentum(const Context& ctx, const MuonMomentum& a);
void orthogonalize(const Context& ctx, const Orthogonalize& a, const MuonScratch& scratch);
void muon_apply(const Context& ctx, const MuonApply& a);
}  // namespace cuda
namespace cpu {
void muon_momentum(const Context& ctx, const MuonMomentum& a);
void orthogonalize(const Context& ctx, const Orthogonalize& a, const MuonScratch& scratch);
void muon_apply(const Context& ctx, const MuonApply& a);
}  // namespace cpu
namespace reference {
void muon_momentum(const Context& ctx, const MuonMomentum& a);
void orthogonalize(const Context& ctx, const Orthogonalize& a, const MuonScratch& scratch);
void muon_apply(const Context& ctx, const MuonApply& a);
}  // namespace reference

DType muon_wire_type(const Tensor& param) {
  return param.device == Device::cuda ? DType::bf16 : param.dtype;
}

static void check_copy(const Context& ctx, const Tensor& copy, const Tensor& param) {
  if (!copy) return;
  SLUICE_CHECK(ctx.device == Device::cuda, "a rounded copy is for CUDA");
  SLUICE_CHECK(copy.dense() && copy.numel() == param.numel() && copy.dtype == DType::bf16,
               "copy is ", to_string(copy), ", param ", to_string(param));
}

static void check_momentum(const Context& ctx, const Tensor& m,
                           std::initializer_list<int64_t> shape, DType T) {
  const bool narrow = m.dtype == DType::bf16 && T == DType::f32;
  check_shape(m, "m", shape, narrow ? DType::bf16 : T, ctx.device);
}

void muon_momentum(const Context& ctx, const MuonMomentum& a) {
  const int64_t n = a.grad.dim(0);
  check_shape(a.grad, "grad", {n}, a.grad.dtype, ctx.device);
  check_momentum(ctx, a.m, {n}, a.grad.dtype);
  check_shape(a.u, "u", {n}, muon_wire_type(a.grad), ctx.device);
  SLUICE_CHECK(a.momentum >= 0 && a.momentum < 1, "momentum is ", a.momentum);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  SLUICE_DISPATCH(muon_momentum, ctx, a);
}

void orthogonalize(const Context& ctx, const Orthogonalize& a) {
  const int64_t B = a.x.dim(0), m = a.x.dim(1), n = a.x.dim(2);
  const bool on_cuda = ctx.device == Device::cuda;
  check_shape(a.x, "x", {B, m, n}, on_cuda ? DType::bf16 : a.x.dtype, ctx.device);
  SLUICE_CHECK(a.x.dense(), "matrices have gaps");
  SLUICE_CHECK(a.ns_steps >= 1, "ns_steps is ", a.ns_steps);
  const int64_t G = muon_matrices(ctx.device, B, m, n), s = std::min(m, n);
  const ArenaTensor y = scratch(ctx, a.x.dtype, {G, m, n}),
                    gram = scratch(ctx, a.x.dtype, {G, s, s}),
                    poly = scratch(ctx, a.x.dtype, {G, s, s}),
                    squares = on_cuda ? scratch(ctx, DType::f64, {G, kMuonParts}) : ArenaTensor(),
                    workspace = gemm_workspace(ctx);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  const MuonScratch memory{y, gram, poly, squares, workspace};
  SLUICE_DISPATCH(orthogonalize, ctx, a, memory);
}

void muon_apply(const Context& ctx, const MuonApply& a) {
  const int64_t n = a.param.dim(0);
  check_shape(a.param, "param", {n}, a.param.dtype, ctx.device);
  check_shape(a.x, "x", {n}, muon_wire_type(a.param), ctx.device);
  check_copy(ctx, a.copy, a.param);
  SLUICE_CHECK(a.longer >= 0, "the longer side is ", a.longer);
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  SLUICE_DISPATCH(muon_apply, ctx, a);
}

void muon(const Context& ctx, const Muon& a) {
  const int64_t B = a.param.dim(0), m = a.param.dim(1), n = a.param.dim(2);
  check_shape(a.param, "param", {B, m, n}, a.param.dtype, ctx.device);
  check_shape(a.grad, "grad", {B, m, n}, a.param);
  check_momentum(ctx, a.m, {B, m, n}, a.param.dtype);
  SLUICE_CHECK(a.param.dense() && a.grad.dense() && a.m.dense(), "matrices have gaps");
  if (a.copy) check_shape(a.copy, "copy", {B, m, n}, DType::bf16, ctx.device);
  check_copy(ctx, a.copy, a.param);
  const int64_t G = muon_matrices(ctx.device, B, m, n);
  const ArenaTensor x = scratch(ctx, muon_wire_type(a.param), {G, m, n});
  for (int64_t b = 0; b < std::max<int64_t>(B, 1); b += std::max<int64_t>(G, 1)) {
    const int64_t count = std::min(G, B - b);
    const auto flat = [&](const Tensor& t) {
      return t ? t.rows(b, count).reshape({count * m * n}) : t;
    };
    const Tensor group = x.view().rows(0, count), all = group.reshape({count * m * n});
    muon_momentum(ctx, {flat(a.grad),
                        flat(a.m),
                        all,
                        a.state,
                        a.momentum,
                        {a.rounding.key, a.rounding.begin + b * m * n}});
    orthogonalize(ctx, {group, a.state, a.ns_steps});
    muon_apply(ctx, {flat(a.param), all, flat(a.copy), a.state, std::max(m, n), a.lr_scale,
                     a.weight_decay});
    if (ctx.mode == Mode::plan) return;  // the first group is the largest
  }
}

}  // namespace sluice
