// model/autograd/recurrence_op.cpp -- KDA and GDN on the tape: what of them is alike, which is all.
#include "model/autograd/heads.h"
#include "model/autograd/layer_probe.h"
#include "model/autograd/mixer_ops.h"
#include "model/autograd/recurrence_segments.h"

namespace sluice {
namespace {

template <class Op>
class Recurrence {
 public:
  using Forward = typename Op::Forward;
  using Inputs = RecurrenceInputs<Op>;
  using Segments = RecurrenceSegments<Op>;

  Recurrence(Tape& tape, const Inputs& in, const Tensor& cu_seqlens,
             const SequenceExchange* exchange)
      : tape_(tape), in_(in), cu_seqlens_(cu_seqlens) {
    if (exchange) segments_ = std::make_shared<Segments>(tape.ctx(), *exchange);
  }

  // What backward and a second forward of it need stays alive.
  void keep() {
    for (Var* v : {&in_.q, &in_.k, &in_.v, &in_.g}) *v = tape_.keep(*v);
    if (has_beta()) in_.beta = tape_.keep(in_.beta);
  }
  Forward arguments() const {
    return {.q = heads(tape_.value(in_.q), in_.H),
            .k = heads(tape_.value(in_.k), in_.H),
            .v = heads(tape_.value(in_.v), in_.HV),
            .g = gate(tape_.value(in_.g)),
            .beta = has_beta() ? tape_.value(in_.beta) : Tensor{},
            .A_log = tape_.params().value(in_.A_log),
            .dt_bias = tape_.params().value(in_.dt_bias),
            .cu_seqlens = cu_seqlens_,
            .initial_state = {},
            .o = {},
            .final_state = {},
            .saved = {},
            .params = in_.params};
  }
  // What the forward pass leaves for backward, in the second run if the first is not to keep it.
  void save(Forward& a) const {
    *saved_ = ArenaTensor(*tape_.ctx().arena, DType::u8, {Op::saved_bytes(tape_.ctx(), a)});
    a.saved = *saved_;
  }
  // With the state from the ranks before, if there are any.
  void forward(Forward& a) const {
    if (segments_) segments_->forward(a);
    forward_from_there(a);
  }
  void forward_again(const Tensor& o) const {
    Forward a = arguments();
    a.o = heads(o, in_.HV);
    save(a);
    forward_from_there(a);
  }
  void backward(const Tensor& d_o) const {
    Forward f = arguments();
    const ArenaTensor entering = entering_states();
    f.initial_state = entering;
    ArenaTensor leaving;
    if (segments_) leaving = leaving_gradients(f, heads(d_o, in_.HV));
    Op::backward(tape_.ctx(), {.q = f.q,
                               .k = f.k,
                               .v = f.v,
                               .g = f.g,
                               .beta = f.beta,
                               .A_log = f.A_log,
                               .dt_bias = f.dt_bias,
                               .cu_seqlens = cu_seqlens_,
                               .initial_state = f.initial_state,
                               .saved = *saved_,
                               .d_o = heads(d_o, in_.HV),
                               .dfinal_state = leaving,
                               .dq = heads(tape_.grad(in_.q), in_.H),
                               .dk = heads(tape_.grad(in_.k), in_.H),
                               .dv = heads(tape_.grad(in_.v), in_.HV),
                               .dg = gate(tape_.grad(in_.g)),
                               .dbeta = has_beta() ? tape_.grad(in_.beta) : Grad{},
                               .dA_log = tape_.params().grad(in_.A_log),
                               .ddt_bias = tape_.params().grad(in_.dt_bias),
                               .dinitial_state = {},
                               .params = in_.params});
  }

 private:
  void forward_from_there(Forward& a) const {
    const ArenaTensor entering = entering_states();
    if (segments_) a.initial_state = entering;
    Op::forward(tape_.ctx(), a);
  }
  // [S, HV, K, V], or none.
  ArenaTensor entering_states() const {
    if (!segments_ || !segments_->entering()) return {};
    return segments_->among_all(segments_->entering(), Segments::Place::first);
  }
  ArenaTensor leaving_gradients(const Forward& f, const Tensor& d_o) const {
    const ArenaTensor one = segments_->gradient_of_leaving(f, d_o);
    if (!segments_->leaves()) return {};
    return segments_->among_all(one, Segments::Place::last);
  }
  bool has_beta() const { return Op::has_beta(in_.params); }
  template <class T>  // a tensor or a gradient
  T gate(const T& g) const {
    return Op::kGateByChannel ? heads(g, in_.HV) : g;
  }

  Tape& tape_;
  Inputs in_;
  Tensor cu_seqlens_;
  std::shared_ptr<ArenaTensor> saved_ = std::make_shared<ArenaTensor>();
  std::shared_ptr<Segments> segments_;  // null: all of the sequence is here
};

// Of a tape that probes, if the caller has no use for the final states: memory for them.
template <class Forward>
Var state_to_probe(Tape& tape, Forward& a) {
  if (!tape.probe() || a.final_state) return {};
  const Var state = tape.make(a.A_log.dtype, {a.cu_seqlens.dim(0) - 1, a.v.dim(1), a.k.dim(2),
                                              a.v.dim(2)});  // [S, HV, K, V]
  a.final_state = state.value;
  return state;
}

template <class Op>
Var record(const char* name, Tape& tape, const RecurrenceInputs<Op>& in, const Tensor& cu_seqlens,
           const KdaParams& law, const RecurrentState& state, const SequenceExchange* exchange) {
  const Tensor& v = in.v.value;
  const Var o = tape.make(v.dtype, {v.dim(0), v.dim(1)});
  SLUICE_CHECK(!exchange || !state.initial, name, ": a state of a cache and one of other ranks");
  Recurrence<Op> r(tape, in, cu_seqlens, exchange);
  typename Op::Forward a = r.arguments();
  a.o = heads(o.value, in.HV);
  a.initial_state = state.initial;
  a.final_state = state.final;
  if constexpr (requires { a.single; }) a.single = state.single;  // KDA's decode is faster then
  if (tape.recording() && !tape.selective()) r.save(a);
  const Var probed = state_to_probe(tape, a);
  r.forward(a);
  if (tape.probe() && tape.ctx().mode != Mode::plan)
    tape.probe()->measure(tape.params().spec(in.A_log).group,
                          {in.g.value, a.A_log, a.dt_bias, a.beta, law, a.final_state, cu_seqlens});
  r.keep();
  tape.record(
      name, o, [&tape, r, id = o.id] { r.backward(tape.upstream(id)); },
      [r](const Tensor& out) { r.forward_again(out); });
  return o;
}

}  // namespace

Var kda(Tape& tape, const KdaInputs& in, const Tensor& cu_seqlens, const RecurrentState& state,
        const SequenceExchange* exchange) {
  return record<KdaOp>("kda", tape, in, cu_seqlens, in.params, state, exchange);
}

Var gdn(Tape& tape, const GdnInputs& in, const Tensor& cu_seqlens, const RecurrentState& state,
        const SequenceExchange* exchange) {
  const KdaParams law{.beta_max = in.params.beta_max};  // the gate is KDA's softplus law
  return record<GdnOp>("gdn", tape, in, cu_seqlens, law, state, exchange);
}

}  // namespace sluice
