// model/autograd/mixer_ops.cpp -- shapes are split by head here; the tape keeps 2-D values.
#include "model/autograd/mixer_ops.h"

#include "kernels/mla/mla.h"
#include "kernels/short_conv/short_conv.h"
#include "model/autograd/heads.h"
#include "model/autograd/step_stats.h"

namespace sluice {

static Tensor heads_or_none(const Tensor& t, int64_t H) {
  return t ? heads(t, H) : t;
}

Var short_conv(Tape& tape, const Var& x, ParamId w, const Tensor& cu_seqlens,
               const RecurrentState& state) {
  const Var y = tape.make(x.value.dtype, {x.value.dim(0), x.value.dim(1)});
  short_conv_forward(tape.ctx(), {.x = x.value,
                                  .w = tape.params().value(w),
                                  .cu_seqlens = cu_seqlens,
                                  .initial_state = state.initial,
                                  .y = y.value,
                                  .final_state = state.final});
  tape.record(
      "short_conv", y,
      [&tape, x = tape.keep(x), w, cu_seqlens, id = y.id] {
        short_conv_backward(tape.ctx(), {.x = tape.value(x),
                                         .w = tape.params().value(w),
                                         .cu_seqlens = cu_seqlens,
                                         .initial_state = {},
                                         .dy = tape.upstream(id),
                                         .dfinal_state = {},
                                         .dx = tape.grad(x),
                                         .dw = tape.params().grad(w),
                                         .dinitial_state = {}});
      },
      [&tape, x = tape.keep(x), w, cu_seqlens](const Tensor& out) {
        short_conv_forward(tape.ctx(), {.x = tape.value(x),
                                        .w = tape.params().value(w),
                                        .cu_seqlens = cu_seqlens,
                                        .initial_state = {},
                                        .y = out,
                                        .final_state = {}});
      });
  return y;
}

Var gated_rmsnorm(Tape& tape, const Var& x, const Var& gate, ParamId w, double eps,
                  GateActivation activation) {
  const int64_t N = x.value.dim(0), C = tape.params().value(w).dim(0), H = x.value.dim(1) / C;
  const Var y = tape.make(x.value.dtype, {N, H * C});
  const Var rstd = tape.make(sum_type(x.value.dtype), {N, H});
  const bool gated = gate.id >= 0;
  const auto forward = [&tape, gated, w, rstd, H, eps, activation](
                           const Tensor& from, const Tensor& logits, const Tensor& to) {
    gated_rmsnorm_forward(tape.ctx(), {.x = heads(from, H),
                                       .gate = gated ? heads(logits, H) : Tensor{},
                                       .w = tape.params().value(w),
                                       .y = heads(to, H),
                                       .rstd = rstd.value,
                                       .eps = eps,
                                       .activation = activation});
  };
  forward(x.value, gate.value, y.value);
  tape.record(
      "gated_rmsnorm", y,
      [&tape, x = tape.keep(x), gate = tape.keep(gate), gated, w, rstd, H, activation, id = y.id] {
        // The gate first: made again before what x takes, it leaves no gap in the arena.
        const Tensor logits = gated ? heads(tape.value(gate), H) : Tensor{};
        gated_rmsnorm_backward(tape.ctx(), {.x = heads(tape.value(x), H),
                                            .gate = logits,
                                            .w = tape.params().value(w),
                                            .rstd = rstd.value,
                                            .dy = heads(tape.upstream(id), H),
                                            .dx = heads(tape.grad(x), H),
                                            .dgate = gated ? heads(tape.grad(gate), H) : Grad{},
                                            .dw = tape.params().grad(w),
                                            .activation = activation,
                                            .y = heads_or_none(tape.wanted(id), H)});
      },
      [&tape, forward, x = tape.keep(x), gate = tape.keep(gate)](const Tensor& out) {
        forward(tape.value(x), tape.value(gate), out);
      },
      Tape::Offer::in_backward);
  return y;
}

Var mla_attention(Tape& tape, const MlaInputs& in, const Tensor& cu_seqlens_q,
                  const Tensor& cu_seqlens_k) {
  const int64_t N = in.q.value.dim(0);
  const DType dtype = in.q.value.dtype;
  const Var o = tape.make(dtype, {N, in.H * in.V});
  const Var lse = tape.make(sum_type(dtype), {N, in.H});
  const bool counted = tape.stats() && in.w_kv_b.index >= 0;
  mla_forward(tape.ctx(), {.q = heads(in.q.value, in.H),
                           .kv = heads(in.kv.value, in.H),
                           .k_rope = in.k_rope.value,
                           .cu_seqlens_q = cu_seqlens_q,
                           .cu_seqlens_k = cu_seqlens_k,
                           .o = heads(o.value, in.H),
                           .lse = lse.value,
                           .max_logit = counted ? tape.stats()->max_logits(in.w_kv_b) : Tensor{},
                           .rope_theta = in.rope_theta,
                           .longest = in.longest});
  tape.record("mla", o, [&tape, in, cu_seqlens_q, cu_seqlens_k, o, lse] {
    const bool has_rope = in.k_rope.id >= 0;
    mla_backward(tape.ctx(), {.q = heads(in.q.value, in.H),
                              .kv = heads(in.kv.value, in.H),
                              .k_rope = in.k_rope.value,
                              .cu_seqlens_q = cu_seqlens_q,
                              .cu_seqlens_k = cu_seqlens_k,
                              .o = heads(o.value, in.H),
                              .lse = lse.value,
                              .d_o = heads(tape.upstream(o.id), in.H),
                              .dq = heads(tape.grad(in.q), in.H),
                              .dkv = heads(tape.grad(in.kv), in.H),
                              .dk_rope = has_rope ? tape.grad(in.k_rope) : Grad{},
                              .rope_theta = in.rope_theta,
                              .longest = in.longest});
  });
  return o;
}

}  // namespace sluice
