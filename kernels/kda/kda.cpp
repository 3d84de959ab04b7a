// kernels/kda/kda.cpp -- the contract, checked once for every back end.
#include "kernels/kda/kda.h"

#include "kernels/kda/saved.h"

namespace sluice {

namespace cpu {
void kda_forward(const Context& ctx, const KdaForward& a);
void kda_backward(const Context& ctx, const KdaBackward& a, Tensor parts);
}  // namespace cpu
#ifdef SLUICE_CUDA_BUILD
namespace cuda {
int64_t kda_workspace_bytes(const kda::Sizes& s, bool keeps);
void kda_forward(const Context& ctx, const KdaForward& a, const Tensor& workspace);
void kda_decode(const Context& ctx, const KdaForward& a);
int64_t kda_backward_bytes(const kda::Sizes& s, bool adds_dv);
void kda_backward(const Context& ctx, const KdaBackward& a, const Tensor& memory);
}  // namespace cuda
#endif
namespace reference {
void kda_forward(const Context& ctx, const KdaForward& a);
void kda_backward(const Context& ctx, const KdaBackward& a, Tensor parts);
}  // namespace reference

// On the GPU the tensors of tokens are bf16, parameters and states f32.
static DType state_type(const Tensor& q) {
  return q.dtype == DType::bf16 ? DType::f32 : q.dtype;
}

static int64_t workspace_bytes([[maybe_unused]] const Context& ctx, const kda::Sizes& s, DType type,
                               [[maybe_unused]] bool keeps) {
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::kda_workspace_bytes(s, keeps);
#endif
  return ctx.mode == Mode::reference ? 0 : s.elements() * size_of(type);  // its loops run again
}

template <class Args>
static void check_inputs(const Context& ctx, const Args& a) {
  SLUICE_CHECK(a.q.rank == 3 && a.v.rank == 3 && a.cu_seqlens.rank == 1, "q is ", to_string(a.q),
               ", v ", to_string(a.v), ", cu_seqlens ", to_string(a.cu_seqlens));
  const auto [N, documents, H, HV, K, V] = kda::sizes_of(a);
  SLUICE_CHECK(H > 0 && HV > 0 && K > 0 && V > 0, "q is ", to_string(a.q), ", v ", to_string(a.v));
  check_shape(a.q, "q", {N, H, K}, a.q.dtype, ctx.device);
  check_shape(a.k, "k", {N, H, K}, a.q);
  check_shape(a.v, "v", {N, HV, V}, a.q);
  check_shape(a.g, "g", {N, HV, K}, a.q);
  check_shape(a.beta, "beta", {N, HV}, a.q);
  const DType f = state_type(a.q);
  check_shape(a.A_log, "A_log", {HV}, f, ctx.device);
  check_shape(a.dt_bias, "dt_bias", {HV, K}, f, ctx.device);
  check_cu_seqlens(ctx, a.cu_seqlens, N);
  if (a.initial_state)
    check_shape(a.initial_state, "initial_state", {documents, HV, K, V}, f, ctx.device);
  SLUICE_CHECK(HV % H == 0, "value heads ", HV, " are no multiple of heads ", H);
  SLUICE_CHECK(a.params.gate == GateLaw::softplus || a.params.gate_lower_bound < 0,
               "gate_lower_bound is ", a.params.gate_lower_bound);
  SLUICE_CHECK(a.params.beta_max == 1 || a.params.beta_max == 2, "beta_max is ", a.params.beta_max);
}

int64_t kda_saved_bytes(const Context& ctx, const KdaForward& a) {
  return workspace_bytes(ctx, kda::sizes_of(a), a.q.dtype, true);
}

void kda_forward(const Context& ctx, const KdaForward& a) {
  check_inputs(ctx, a);
  const auto [N, documents, H, HV, K, V] = kda::sizes_of(a);
  check_shape(a.o, "o", {N, HV, V}, a.q);
  if (a.final_state) check_shape(a.final_state, "final_state", {documents, HV, K, V}, a.A_log);
  if (a.saved) check_shape(a.saved, "saved", {kda_saved_bytes(ctx, a)}, DType::u8, ctx.device);
  SLUICE_CHECK(!a.single || (!a.saved && N <= documents), "decodes ", N, " tokens of ", documents,
               " documents", a.saved ? ", and keeps something for a backward pass" : "");
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda && a.single && K == V && (K == 64 || K == 128)) {
    if (ctx.mode != Mode::plan) cuda::kda_decode(ctx, a);
    return;
  }
  if (ctx.device == Device::cuda) {
    const int64_t bytes = a.saved ? 0 : cuda::kda_workspace_bytes(kda::sizes_of(a), false);
    const ArenaTensor memory = scratch(ctx, DType::u8, {bytes});
    if (ctx.mode != Mode::plan) cuda::kda_forward(ctx, a, a.saved ? a.saved : memory.view());
    return;
  }
#endif
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(kda_forward, ctx, a);
}

void kda_backward(const Context& ctx, const KdaBackward& a) {
  check_inputs(ctx, a);
  const auto [N, documents, H, HV, K, V] = kda::sizes_of(a);
  const int64_t saved = workspace_bytes(ctx, kda::sizes_of(a), a.q.dtype, true);
  check_shape(a.saved, "saved", {saved}, DType::u8, ctx.device);
  check_shape(a.d_o, "d_o", {N, HV, V}, a.q);
  if (a.dfinal_state) check_shape(a.dfinal_state, "dfinal_state", {documents, HV, K, V}, a.A_log);
  check_shape(a.dq.t, "dq", {N, H, K}, a.q);
  check_shape(a.dk.t, "dk", {N, H, K}, a.q);
  check_shape(a.dv.t, "dv", {N, HV, V}, a.q);
  check_shape(a.dg.t, "dg", {N, HV, K}, a.q);
  check_shape(a.dbeta.t, "dbeta", {N, HV}, a.q);
  check_shape(a.dA_log.t, "dA_log", {HV}, a.A_log);
  check_shape(a.ddt_bias.t, "ddt_bias", {HV, K}, a.A_log);
  if (a.dinitial_state)
    check_shape(a.dinitial_state.t, "dinitial_state", {documents, HV, K, V}, a.A_log);
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) {
    const ArenaTensor memory =
        scratch(ctx, DType::u8, {cuda::kda_backward_bytes(kda::sizes_of(a), a.dv.add)});
    if (ctx.mode != Mode::plan) cuda::kda_backward(ctx, a, memory);
    return;
  }
#endif
  // A document's part of dt_bias's gradient, and of A_log's behind it.
  const ArenaTensor parts = scratch(ctx, a.q.dtype, {documents, HV, K + 1});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(kda_backward, ctx, a, parts.view());
}

}  // namespace sluice
