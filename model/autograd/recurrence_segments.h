// model/autograd/recurrence_segments.h -- states of KDA or GDN between ranks that have one sequence
// in pieces (kernels/segment_scan has the mathematics).
//
// What a rank does to the state that enters it is S -> A S + B. B is what a pass from zero over the
// document that leaves ends with; A, of a rank that a document passes through, what a pass with
// v = 0 from the identity does. Dims: n tokens here, P ranks, E = HV * K * (V + K).
#pragma once

#include "kernels/comm/sequence_exchange.h"
#include "kernels/segment_scan/segment_scan.h"
#include "kernels/tensor/fill.h"

namespace sluice {

template <class Op>
class RecurrenceSegments {
 public:
  using Forward = typename Op::Forward;
  using Backward = typename Op::Backward;

  RecurrenceSegments(const Context& ctx, const SequenceExchange& exchange)
      : ctx_(ctx), exchange_(exchange), cut_(exchange.cut()) {}

  // `f`: the inputs of all documents of this rank.
  void forward(const Forward& f) {
    const int64_t HV = f.v.dim(1), K = f.k.dim(2), V = f.v.dim(2), n = f.q.dim(0);
    const DType type = f.A_log.dtype;
    entering_ = ArenaTensor(*ctx_.arena, type, {1, HV, K, V});
    transition_ = ArenaTensor(*ctx_.arena, type, {1, HV, K, K});
    const ArenaTensor own = scratch(ctx_, type, {HV * K * (V + K)});
    if (leaves()) {
      const int64_t begin = planning() ? 0 : part().last_begin;
      const ArenaTensor o = scratch(ctx_, f.v.dtype, {n - begin, HV, V});
      const ArenaTensor cu = boundaries(n - begin);
      Forward a = document(f, begin, n - begin, cu);
      a.o = o;
      a.final_state = B_of(own, HV, K, V);
      Op::forward(ctx_, a);
    }
    if (planning() || part().passes()) find_transition(f);
    compose(own, HV, K, V, false, entering_.view().reshape({HV, K, V}));
  }

  // [1, HV, K, V] of the first document; none: it does not enter.
  Tensor entering() const { return planning() || part().enters ? entering_.view() : Tensor{}; }

  // [1, HV, K, V], the gradient of the state that leaves; `d_o` of all documents.
  ArenaTensor gradient_of_leaving(const Forward& f, const Tensor& d_o) const {
    const int64_t HV = f.v.dim(1), K = f.k.dim(2), V = f.v.dim(2);
    const DType type = f.A_log.dtype;
    ArenaTensor leaving(*ctx_.arena, type, {1, HV, K, V});
    const ArenaTensor own = scratch(ctx_, type, {HV * K * (V + K)});
    if (planning() || part().enters) first_alone(f, d_o, B_of(own, HV, K, V));
    compose(own, HV, K, V, true, leaving.view().reshape({HV, K, V}));
    return leaving;
  }

  // [S, HV, K, V] with `state` [1, ..] for the first document, or the last, and 0 for the others.
  enum class Place { first, last };
  ArenaTensor among_all(const Tensor& state, Place place) const {
    const int64_t S = int64_t(cut_.documents.size()) - 1;
    ArenaTensor all(*ctx_.arena, state.dtype, {S, state.dim(1), state.dim(2), state.dim(3)});
    zero(ctx_, all);
    int64_t d = 0;
    for (int64_t i = 0; place == Place::last && i < S; ++i)
      if (cut_.documents[size_t(i)] < cut_.documents[size_t(i) + 1]) d = i;
    copy_in_order(ctx_, state, all.view().rows(d, 1));
    return all;
  }
  bool leaves() const { return planning() || part().leaves; }

 private:
  const SequenceCut::Part& part() const { return cut_.mine(); }
  bool planning() const { return ctx_.mode == Mode::plan; }  // for the most that a cut may take

  static Tensor B_of(const Tensor& own, int64_t HV, int64_t K, int64_t V) {
    return own.rows(0, HV * K * V).reshape({1, HV, K, V});
  }
  static Tensor A_of(const Tensor& own, int64_t HV, int64_t K, int64_t V) {
    return own.rows(HV * K * V, HV * K * K).reshape({1, HV, K, K});
  }

  ArenaTensor boundaries(int64_t tokens) const {
    ArenaTensor cu(*ctx_.arena, DType::i32, {2});
    int32_t host[2] = {0, int32_t(tokens)};
    copy_in_order(ctx_, make_tensor(host, DType::i32, Device::cpu, {2}), cu);
    return cu;
  }
  static Forward document(Forward f, int64_t begin, int64_t count, const Tensor& cu) {
    for (Tensor* t : {&f.q, &f.k, &f.v, &f.g}) *t = t->rows(begin, count);
    if (f.beta) f.beta = f.beta.rows(begin, count);
    f.cu_seqlens = cu;
    f.o = f.saved = f.initial_state = f.final_state = {};
    return f;
  }

  void find_transition(const Forward& f) {
    const int64_t HV = f.v.dim(1), K = f.k.dim(2), n = f.q.dim(0);
    const ArenaTensor v = scratch(ctx_, f.v.dtype, {n, HV, K});
    const ArenaTensor o = scratch(ctx_, f.v.dtype, {n, HV, K});
    const ArenaTensor identity = scratch(ctx_, f.A_log.dtype, {1, HV, K, K});
    const ArenaTensor cu = boundaries(n);
    zero(ctx_, v);
    set_identities(ctx_, identity.view().reshape({HV, K, K}));
    Forward a = document(f, 0, n, cu);
    a.v = v, a.o = o;
    a.initial_state = identity, a.final_state = transition_;
    Op::forward(ctx_, a);
  }

  // Everybody's operators, own holding B of this rank, and the state before (reverse: behind) it.
  void compose(const Tensor& own, int64_t HV, int64_t K, int64_t V, bool reverse,
               const Tensor& state) const {
    copy_in_order(ctx_, transition_, A_of(own, HV, K, V));
    const int64_t P = int64_t(cut_.parts.size());
    const ArenaTensor all = scratch(ctx_, own.dtype, {P, own.numel()});
    exchange_.from_all(ctx_, own, all);
    int64_t first = cut_.rank, last = cut_.rank;  // segments first .. last
    if (reverse && part().leaves)
      for (++last; cut_.parts[size_t(last)].passes();) ++last;
    if (!reverse && part().enters)
      for (--first; cut_.parts[size_t(first)].passes();) --first;
    segment_scan(ctx_, {.operators = all,
                        .first = reverse ? first + 1 : first,
                        .count = last - first,
                        .reverse = reverse,
                        .state = state});
  }

  // B' of the document that enters: its gradient at the first token, nothing coming from behind.
  // All is affine in the state, so that which one enters makes no difference to it.
  void first_alone(const Forward& f, const Tensor& d_o, const Tensor& d_entering) const {
    const int64_t tokens = planning() ? f.q.dim(0) : part().first_end;
    const ArenaTensor cu = boundaries(tokens);
    Forward a = document(f, 0, tokens, cu);
    const ArenaTensor o = scratch(ctx_, f.v.dtype, {tokens, a.v.dim(1), a.v.dim(2)});
    a.o = o;
    const ArenaTensor saved = scratch(ctx_, DType::u8, {Op::saved_bytes(ctx_, a)});
    a.saved = saved;
    Op::forward(ctx_, a);
    std::vector<ArenaTensor> unused;  // the other gradients
    const auto like = [&](const Tensor& t) {
      if (!t) return Grad{};
      return Grad{unused.emplace_back(*ctx_.arena, t).view(), false};
    };
    const Backward b{.q = a.q,
                     .k = a.k,
                     .v = a.v,
                     .g = a.g,
                     .beta = a.beta,
                     .A_log = a.A_log,
                     .dt_bias = a.dt_bias,
                     .cu_seqlens = a.cu_seqlens,
                     .initial_state = a.initial_state,
                     .saved = a.saved,
                     .d_o = d_o.rows(0, tokens),
                     .dfinal_state = {},
                     .dq = like(a.q),
                     .dk = like(a.k),
                     .dv = like(a.v),
                     .dg = like(a.g),
                     .dbeta = like(a.beta),
                     .dA_log = like(a.A_log),
                     .ddt_bias = like(a.dt_bias),
                     .dinitial_state = {d_entering, false},
                     .params = a.params};
    Op::backward(ctx_, b);
  }
  Context ctx_;
  const SequenceExchange& exchange_;
  const SequenceCut& cut_;
  ArenaTensor entering_;    // [1, HV, K, V]
  ArenaTensor transition_;  // [1, HV, K, K] A, if a document passes through
};

}  // namespace sluice
