// model/autograd/mixer_ops.cpp -- shapes are split by head here; the tape keeps 2-D values.
#include "model/autograd/mixer_ops.h"

#include "kernels/mla/mla.h"
#include "kernels/short_conv/short_conv.h"
#include "model/autograd/layer_probe.h"
#include "model/autograd/step_stats.h"

namespace sluice {

static Tensor heads(const Tensor& t, int64_t H) {  // [N, H*C] -> [N, H, C]
  return t.reshape({t.dim(0), H, t.dim(1) / H});
}
static Tensor heads_or_none(const Tensor& t, int64_t H) {
  return t ? heads(t, H) : t;
}
static Grad heads(const Grad& g, int64_t H) {
  return {heads(g.t, H), g.add};
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

static KdaForward kda_arguments(Tape& tape, const KdaInputs& in, const Tensor& cu_seqlens) {
  return {.q = heads(tape.value(in.q_NHK), in.H),
          .k = heads(tape.value(in.k_NHK), in.H),
          .v = heads(tape.value(in.v_NHV), in.HV),
          .g = heads(tape.value(in.g_NHK), in.HV),
          .beta = tape.value(in.beta_NH),
          .A_log = tape.params().value(in.A_log),
          .dt_bias = tape.params().value(in.dt_bias),
          .cu_seqlens = cu_seqlens,
          .initial_state = {},
          .o = {},
          .final_state = {},
          .saved = {},
          .params = in.params};
}

static void kda_op_backward(Tape& tape, const KdaInputs& in, const Tensor& cu_seqlens,
                            const Tensor& saved, int output) {
  const KdaForward f = kda_arguments(tape, in, cu_seqlens);
  kda_backward(tape.ctx(), {.q = f.q,
                            .k = f.k,
                            .v = f.v,
                            .g = f.g,
                            .beta = f.beta,
                            .A_log = f.A_log,
                            .dt_bias = f.dt_bias,
                            .cu_seqlens = cu_seqlens,
                            .initial_state = {},
                            .saved = saved,
                            .d_o = heads(tape.upstream(output), in.HV),
                            .dfinal_state = {},
                            .dq = heads(tape.grad(in.q_NHK), in.H),
                            .dk = heads(tape.grad(in.k_NHK), in.H),
                            .dv = heads(tape.grad(in.v_NHV), in.HV),
                            .dg = heads(tape.grad(in.g_NHK), in.HV),
                            .dbeta = tape.grad(in.beta_NH),
                            .dA_log = tape.params().grad(in.A_log),
                            .ddt_bias = tape.params().grad(in.dt_bias),
                            .dinitial_state = {},
                            .params = in.params});
}

// Of a tape that probes, if the caller has no use for the final states: memory for them.
template <class Forward>
static Var state_to_probe(Tape& tape, Forward& a) {
  if (!tape.probe() || a.final_state) return {};
  const Var state = tape.make(a.A_log.dtype, {a.cu_seqlens.dim(0) - 1, a.v.dim(1), a.k.dim(2),
                                              a.v.dim(2)});  // [S, HV, K, V]
  a.final_state = state.value;
  return state;
}
static void probe(Tape& tape, ParamId A_log, const ProbedRecurrence& r) {
  if (tape.probe() && tape.ctx().mode != Mode::plan)
    tape.probe()->measure(tape.params().spec(A_log).group, r);
}

static KdaInputs keep(const Tape& tape, KdaInputs in) {
  for (Var* v : {&in.q_NHK, &in.k_NHK, &in.v_NHV, &in.g_NHK, &in.beta_NH}) *v = tape.keep(*v);
  return in;
}

// What the forward pass leaves for backward, in the second run if the first is not to keep it.
using KdaSaved = std::shared_ptr<ArenaTensor>;
static void save_into(Tape& tape, KdaForward& a, const KdaSaved& saved) {
  *saved = ArenaTensor(*tape.ctx().arena, DType::u8, {kda_saved_bytes(tape.ctx(), a)});
  a.saved = *saved;
}

Var kda(Tape& tape, const KdaInputs& in, const Tensor& cu_seqlens, const RecurrentState& state) {
  const Tensor& v = in.v_NHV.value;
  const Var o = tape.make(v.dtype, {v.dim(0), v.dim(1)});
  KdaForward a = kda_arguments(tape, in, cu_seqlens);
  a.initial_state = state.initial;
  a.final_state = state.final;
  a.single = state.single;
  a.o = heads(o.value, in.HV);
  const auto saved = std::make_shared<ArenaTensor>();
  if (tape.recording() && !tape.selective()) save_into(tape, a, saved);
  const Var probed = state_to_probe(tape, a);
  kda_forward(tape.ctx(), a);
  probe(tape, in.A_log,
        {in.g_NHK.value, a.A_log, a.dt_bias, a.beta, in.params, a.final_state, cu_seqlens});
  const KdaInputs kept = keep(tape, in);
  tape.record(
      "kda", o,
      [&tape, kept, cu_seqlens, saved, id = o.id] {
        kda_op_backward(tape, kept, cu_seqlens, *saved, id);
      },
      [&tape, kept, cu_seqlens, saved](const Tensor& out) {
        KdaForward again = kda_arguments(tape, kept, cu_seqlens);
        again.o = heads(out, kept.HV);
        save_into(tape, again, saved);
        kda_forward(tape.ctx(), again);
      });
  return o;
}

static GdnForward gdn_arguments(Tape& tape, const GdnInputs& in, const Tensor& cu_seqlens) {
  return {.q = heads(in.q_NHK.value, in.H),
          .k = heads(in.k_NHK.value, in.H),
          .v = heads(in.v_NHV.value, in.HV),
          .g = in.g_NH.value,
          .beta = in.beta_NH.value,
          .A_log = tape.params().value(in.A_log),
          .dt_bias = tape.params().value(in.dt_bias),
          .cu_seqlens = cu_seqlens,
          .initial_state = {},
          .o = {},
          .final_state = {},
          .saved = {},
          .params = in.params};
}

static void gdn_op_backward(Tape& tape, const GdnInputs& in, const Tensor& cu_seqlens,
                            const Tensor& saved, int output) {
  const GdnForward f = gdn_arguments(tape, in, cu_seqlens);
  gdn_backward(tape.ctx(), {.q = f.q,
                            .k = f.k,
                            .v = f.v,
                            .g = f.g,
                            .beta = f.beta,
                            .A_log = f.A_log,
                            .dt_bias = f.dt_bias,
                            .cu_seqlens = cu_seqlens,
                            .initial_state = {},
                            .saved = saved,
                            .d_o = heads(tape.upstream(output), in.HV),
                            .dfinal_state = {},
                            .dq = heads(tape.grad(in.q_NHK), in.H),
                            .dk = heads(tape.grad(in.k_NHK), in.H),
                            .dv = heads(tape.grad(in.v_NHV), in.HV),
                            .dg = tape.grad(in.g_NH),
                            .dbeta = in.params.delta_rule ? tape.grad(in.beta_NH) : Grad{},
                            .dA_log = tape.params().grad(in.A_log),
                            .ddt_bias = tape.params().grad(in.dt_bias),
                            .dinitial_state = {},
                            .params = in.params});
}

Var gdn(Tape& tape, const GdnInputs& in, const Tensor& cu_seqlens, const RecurrentState& state) {
  const Tensor& v = in.v_NHV.value;
  const Var o = tape.make(v.dtype, {v.dim(0), v.dim(1)});
  GdnForward a = gdn_arguments(tape, in, cu_seqlens);
  a.initial_state = state.initial;
  a.final_state = state.final;
  a.o = heads(o.value, in.HV);
  Var saved;
  if (tape.recording()) {
    saved = tape.make(DType::u8, {gdn_saved_bytes(tape.ctx(), a)});
    a.saved = saved.value;
  }
  const Var probed = state_to_probe(tape, a);
  gdn_forward(tape.ctx(), a);
  const KdaParams law{.beta_max = in.params.beta_max};  // the gate is KDA's softplus law
  probe(tape, in.A_log, {a.g, a.A_log, a.dt_bias, a.beta, law, a.final_state, cu_seqlens});
  tape.record("gdn", o, [&tape, in, cu_seqlens, saved, id = o.id] {
    gdn_op_backward(tape, in, cu_seqlens, saved.value, id);
  });
  return o;
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
