// kernels/mla/mla.cpp -- the contract, checked once for every back end.
#include "kernels/mla/mla.h"

#include <algorithm>

#include "kernels/mla/cudnn_op.h"

namespace sluice {

namespace cpu {
void mla_forward(const Context& ctx, const MlaForward& a, const mla::Scratch& scratch);
void mla_backward(const Context& ctx, const MlaBackward& a, const mla::Scratch& scratch);
}  // namespace cpu
#ifdef SLUICE_CUDA_BUILD
namespace cuda {
void mla_forward(const Context& ctx, const MlaForward& a, const mla::CudaScratch& memory);
void mla_backward(const Context& ctx, const MlaBackward& a, const mla::CudaScratch& memory);
}  // namespace cuda
#endif
namespace reference {
void mla_forward(const Context& ctx, const MlaForward& a, const mla::Scratch& scratch);
void mla_backward(const Context& ctx, const MlaBackward& a, const mla::Scratch& scratch);
}  // namespace reference

template <class Args>
static void check_inputs(const Context& ctx, const Args& a) {
  const mla::Sizes s = mla::sizes_of(a);
  SLUICE_CHECK(s.nope >= 0 && s.rope >= 0 && s.nope + s.rope > 0 && s.V > 0, "q is ",
               to_string(a.q), ", kv ", to_string(a.kv), ", o ", to_string(a.o),
               ": no split into nope, rope and value columns");
  check_shape(a.q, "q", {s.Nq, s.H, s.nope + s.rope}, a.q.dtype, ctx.device);
  check_shape(a.kv, "kv", {s.Nk, s.H, s.nope + s.V}, a.q);
  if (s.rope > 0) check_shape(a.k_rope, "k_rope", {s.Nk, s.rope}, a.q);
  check_shape(a.o, "o", {s.Nq, s.H, s.V}, a.q);
  check_shape(a.lse, "lse", {s.Nq, s.H}, sum_type(a.q.dtype), ctx.device);
  SLUICE_CHECK(a.rope_theta == 0 || (a.rope_theta > 1 && s.rope % 2 == 0), "rope_theta is ",
               a.rope_theta, " and rope ", s.rope);
  check_cu_seqlens(ctx, a.cu_seqlens_q, s.Nq, "cu_seqlens_q");
  check_cu_seqlens(ctx, a.cu_seqlens_k, s.Nk, "cu_seqlens_k");
  check_shape(a.cu_seqlens_k, "cu_seqlens_k", {s.documents + 1}, a.cu_seqlens_q);
  if (ctx.mode == Mode::plan || ctx.device != Device::cpu) return;
  const int32_t *q = a.cu_seqlens_q.template as<int32_t>(),
                *k = a.cu_seqlens_k.template as<int32_t>();
  for (int64_t d = 0; d < s.documents; ++d) {
    SLUICE_CHECK(q[d + 1] - q[d] <= k[d + 1] - k[d], "document ", d, " has ", q[d + 1] - q[d],
                 " queries and ", k[d + 1] - k[d], " keys");
    SLUICE_CHECK(k[d + 1] - k[d] <= s.longest, "document ", d, " has ", k[d + 1] - k[d],
                 " keys, said to be at most ", s.longest);
  }
}

namespace {

// On CUDA: who sees whom, and the inputs turned, if they are rotated.
class TurnedMemory {
 public:
  template <class Args>
  TurnedMemory(const Context& ctx, const Args& a) {
    const mla::Sizes s = mla::sizes_of(a);
    const int64_t Nq = a.rope_theta > 0 ? s.Nq : 0, Nk = a.rope_theta > 0 ? s.Nk : 0;
    span_ = sluice::scratch(ctx, DType::i32, {s.Nq, 2});
    turn_ = sluice::scratch(ctx, DType::f32, {Nk, s.rope});
    q_ = sluice::scratch(ctx, a.q.dtype, {Nq, s.H, s.nope + s.rope});
    k_rope_ = sluice::scratch(ctx, a.q.dtype, {Nk, s.rope});
  }
  mla::CudaScratch scratch() const {
    return {.span = span_, .turn = turn_, .q = q_, .k_rope = k_rope_, .delta = {}, .parts = {}};
  }

 private:
  ArenaTensor span_, turn_, q_, k_rope_;
};

}  // namespace

void mla_forward(const Context& ctx, const MlaForward& a) {
  check_inputs(ctx, a);
  const mla::Sizes s = mla::sizes_of(a);
  if (a.max_logit) check_shape(a.max_logit, "max_logit", {s.H}, DType::f32, ctx.device);
  if (ctx.device == Device::cuda) {
    if (mla::by_cudnn(s, ctx.determinism)) return mla::forward_by_cudnn(ctx, a);
    const TurnedMemory turned(ctx, a);
    if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
    return cuda::mla_forward(ctx, a, turned.scratch());
#endif
  }
  const int64_t G = std::min(s.H, mla::kHeads), width = s.nope + s.rope;
  const ArenaTensor q = scratch(ctx, a.q.dtype, {G, s.Nq, width}),
                    k = scratch(ctx, a.q.dtype, {G, s.Nk, width}),
                    turn = scratch(ctx, a.q.dtype, {a.rope_theta > 0 ? s.Nk : 0, s.rope});
  if (ctx.mode == Mode::plan) return;
  const mla::Scratch memory{
      .q = q, .k = k, .turn = turn, .dq = {}, .dk = {}, .dv = {}, .delta = {}};
  SLUICE_DISPATCH_CPU(mla_forward, ctx, a, memory);
}

void mla_backward(const Context& ctx, const MlaBackward& a) {
  check_inputs(ctx, a);
  const mla::Sizes s = mla::sizes_of(a);
  check_shape(a.d_o, "d_o", {s.Nq, s.H, s.V}, a.q);
  check_shape(a.dq.t, "dq", {s.Nq, s.H, s.nope + s.rope}, a.q);
  check_shape(a.dkv.t, "dkv", {s.Nk, s.H, s.nope + s.V}, a.q);
  if (s.rope > 0) check_shape(a.dk_rope.t, "dk_rope", {s.Nk, s.rope}, a.q);
  if (ctx.device == Device::cuda) {
    const bool strict = ctx.determinism == Determinism::strict;
    const int64_t heads = strict ? mla::heads_in_order(s) : 0;
    if (mla::by_cudnn(s, ctx.determinism) && (heads > 0 || !strict))
      return mla::backward_by_cudnn(ctx, a, heads);
    const TurnedMemory turned(ctx, a);
    const ArenaTensor delta = scratch(ctx, DType::f32, {s.Nq, s.H}),
                      parts = scratch(ctx, DType::f32, {s.H, s.Nk, s.rope});
    if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
    mla::CudaScratch memory = turned.scratch();
    memory.delta = delta, memory.parts = parts;
    return cuda::mla_backward(ctx, a, memory);
#endif
  }
  const int64_t G = std::min(s.H, mla::kHeads), width = s.nope + s.rope;
  const ArenaTensor q = scratch(ctx, a.q.dtype, {G, s.Nq, width}),
                    k = scratch(ctx, a.q.dtype, {G, s.Nk, width}),
                    turn = scratch(ctx, a.q.dtype, {a.rope_theta > 0 ? s.Nk : 0, s.rope}),
                    dq = scratch(ctx, a.q.dtype, {G, s.Nq, width}),
                    dk = scratch(ctx, a.q.dtype, {G, s.Nk, width}),
                    dv = scratch(ctx, a.q.dtype, {G, s.Nk, s.V}),
                    delta = scratch(ctx, a.q.dtype, {G, s.Nq});
  if (ctx.mode == Mode::plan) return;
  const mla::Scratch memory{
      .q = q, .k = k, .turn = turn, .dq = dq, .dk = dk, .dv = dv, .delta = delta};
  SLUICE_DISPATCH_CPU(mla_backward, ctx, a, memory);
}

}  // namespace sluice
