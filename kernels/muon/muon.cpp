// kernels/muon/muon.cpp -- the contract, checked once for every back end.
#include "kernels/muon/muon.h"

#include <algorithm>

#include "kernels/muon/scratch.h"

namespace sluice {

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
  const int64_t G = std::min(B, kMuonMatrices), s = std::min(m, n);
  const ArenaTensor x = scratch(ctx, a.param.dtype, {G, m, n}),
                    y = scratch(ctx, a.param.dtype, {G, m, n}),
                    gram = scratch(ctx, a.param.dtype, {G, s, s}),
                    poly = scratch(ctx, a.param.dtype, {G, s, s});
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(a.state, "no step state");
  const MuonScratch memory{.x = x, .y = y, .gram = gram, .poly = poly};
  SLUICE_DISPATCH_CPU(muon, ctx, a, memory);
}

}  // namespace sluice
