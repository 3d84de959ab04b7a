// kernels/gdn/gdn.cpp -- the contract, checked once for every back end.
#include "kernels/gdn/gdn.h"

#include "kernels/gdn/saved.h"

namespace sluice {

namespace cpu {
void gdn_forward(const Context& ctx, const GdnForward& a);
void gdn_backward(const Context& ctx, const GdnBackward& a, Tensor parts);
}  // namespace cpu
#ifdef SLUICE_CUDA_BUILD
namespace cuda {
int64_t gdn_workspace_bytes(const gdn::Sizes& s, bool keeps);
void gdn_forward(const Context& ctx, const GdnForward& a, const Tensor& workspace);
int64_t gdn_backward_bytes(const gdn::Sizes& s);
void gdn_backward(const Context& ctx, const GdnBackward& a, const Tensor& memory);
}  // namespace cuda
#endif
namespace reference {
void gdn_forward(const Context& ctx, const GdnForward& a);
void gdn_backward(const Context& ctx, const GdnBackward& a, Tensor parts);
}  // namespace reference

// On the GPU the tensors of tokens are bf16, parameters and states f32.
static DType state_type(const Tensor& q) {
  return q.dtype == DType::bf16 ? DType::f32 : q.dtype;
}

static int64_t workspace_bytes(const Context& ctx, const gdn::Sizes& s, DType type) {
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::gdn_workspace_bytes(s, true);
#endif
  return ctx.mode == Mode::reference ? 0 : s.elements() * size_of(type);  // its loops run again
}

template <class Args>
static void check_inputs(const Context& ctx, const Args& a) {
  SLUICE_CHECK(a.q.rank == 3 && a.v.rank == 3 && a.cu_seqlens.rank == 1, "q is ", to_string(a.q),
               ", v ", to_string(a.v), ", cu_seqlens ", to_string(a.cu_seqlens));
  const gdn::Sizes s = gdn::sizes_of(a);
  SLUICE_CHECK(s.H > 0 && s.HV > 0 && s.K > 0 && s.V > 0, "q is ", to_string(a.q), ", v ",
               to_string(a.v));
  check_shape(a.q, "q", {s.N, s.H, s.K}, a.q.dtype, ctx.device);
  check_shape(a.k, "k", {s.N, s.H, s.K}, a.q);
  check_shape(a.v, "v", {s.N, s.HV, s.V}, a.q);
  check_shape(a.g, "g", {s.N, s.HV}, a.q);
  const DType f = state_type(a.q);
  check_shape(a.A_log, "A_log", {s.HV}, f, ctx.device);
  check_shape(a.dt_bias, "dt_bias", {s.HV}, f, ctx.device);
  check_cu_seqlens(ctx, a.cu_seqlens, s.N);
  if (a.initial_state)
    check_shape(a.initial_state, "initial_state", {s.documents, s.HV, s.K, s.V}, f, ctx.device);
  SLUICE_CHECK(s.HV % s.H == 0, "value heads ", s.HV, " are no multiple of heads ", s.H);
  SLUICE_CHECK(a.params.beta_max == 1 || (a.params.beta_max == 2 && s.delta_rule), "beta_max is ",
               a.params.beta_max, s.delta_rule ? "" : " without the delta rule");
  if (s.delta_rule)
    check_shape(a.beta, "beta", {s.N, s.HV}, a.q);
  else
    SLUICE_CHECK(!a.beta, "beta is ", to_string(a.beta), " without the delta rule");
}

int64_t gdn_saved_bytes(const Context& ctx, const GdnForward& a) {
  return workspace_bytes(ctx, gdn::sizes_of(a), a.q.dtype);
}

void gdn_forward(const Context& ctx, const GdnForward& a) {
  check_inputs(ctx, a);
  const gdn::Sizes s = gdn::sizes_of(a);
  check_shape(a.o, "o", {s.N, s.HV, s.V}, a.q);
  if (a.final_state)
    check_shape(a.final_state, "final_state", {s.documents, s.HV, s.K, s.V}, a.A_log);
  if (a.saved) check_shape(a.saved, "saved", {gdn_saved_bytes(ctx, a)}, DType::u8, ctx.device);
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) {
    const int64_t bytes = a.saved ? 0 : cuda::gdn_workspace_bytes(s, false);
    const ArenaTensor memory = scratch(ctx, DType::u8, {bytes});
    if (ctx.mode != Mode::plan) cuda::gdn_forward(ctx, a, a.saved ? a.saved : memory.view());
    return;
  }
#endif
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(gdn_forward, ctx, a);
}

void gdn_backward(const Context& ctx, const GdnBackward& a) {
  check_inputs(ctx, a);
  const gdn::Sizes s = gdn::sizes_of(a);
  check_shape(a.saved, "saved", {workspace_bytes(ctx, s, a.q.dtype)}, DType::u8, ctx.device);
  check_shape(a.d_o, "d_o", {s.N, s.HV, s.V}, a.q);
  if (a.dfinal_state)
    check_shape(a.dfinal_state, "dfinal_state", {s.documents, s.HV, s.K, s.V}, a.A_log);
  check_shape(a.dq.t, "dq", {s.N, s.H, s.K}, a.q);
  check_shape(a.dk.t, "dk", {s.N, s.H, s.K}, a.q);
  check_shape(a.dv.t, "dv", {s.N, s.HV, s.V}, a.q);
  check_shape(a.dg.t, "dg", {s.N, s.HV}, a.q);
  if (s.delta_rule) check_shape(a.dbeta.t, "dbeta", {s.N, s.HV}, a.q);
  check_shape(a.dA_log.t, "dA_log", {s.HV}, a.A_log);
  check_shape(a.ddt_bias.t, "ddt_bias", {s.HV}, a.A_log);
  if (a.dinitial_state)
    check_shape(a.dinitial_state.t, "dinitial_state", {s.documents, s.HV, s.K, s.V}, a.A_log);
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) {
    const ArenaTensor memory = scratch(ctx, DType::u8, {cuda::gdn_backward_bytes(s)});
    if (ctx.mode != Mode::plan) cuda::gdn_backward(ctx, a, memory);
    return;
  }
#endif
  // A document's part of dt_bias's gradient, and of A_log's behind it.
  const ArenaTensor parts = scratch(ctx, a.q.dtype, {s.documents, s.HV, 2});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(gdn_backward, ctx, a, parts.view());
}

}  // namespace sluice
