// tests/kernels/recurrence_problem.h -- one problem of KDA or GDN with everything around it, for
// the tests of the operators.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice::test {

template <class Op>  // KdaOp, GdnOp
struct RecurrenceShape {
  int64_t H = 2, HV = 2, K = 8, V = 6;
  std::vector<int32_t> cu{0, 20};
  typename Op::Params params;
  int64_t N() const { return cu.back(); }
  int64_t documents() const { return int64_t(cu.size()) - 1; }
};

// Inputs, outputs and gradients, all allocated. Outputs are NaN before a run, so that what no op
// wrote shows. Every input is a value that f32 holds, so that an f32 copy is the same problem.
template <class Op>
struct RecurrenceProblem {
  using Forward = typename Op::Forward;
  using Backward = typename Op::Backward;

  explicit RecurrenceProblem(RecurrenceShape<Op> s, DType t = DType::f64)
      : shape(std::move(s)),
        type(t),
        q(t, {shape.N(), shape.H, shape.K}),
        k(q.view()),
        v(t, {shape.N(), shape.HV, shape.V}),
        g(gate_buffer(t, {shape.N(), shape.HV, shape.K})),
        beta(t, {shape.N(), shape.HV}),
        A_log(t, {shape.HV}),
        dt_bias(gate_buffer(t, {shape.HV, shape.K})),
        cu(DType::i32, {shape.documents() + 1}),
        s0(t, {shape.documents(), shape.HV, shape.K, shape.V}),
        d_o(v.view()),
        ds1(s0.view()),
        o(v.view()),
        s1(s0.view()),
        dq(q.view()),
        dk(q.view()),
        dv(v.view()),
        dg(g.view()),
        dbeta(beta.view()),
        dA_log(A_log.view()),
        ddt_bias(dt_bias.view()),
        ds0(s0.view()) {
    std::copy(shape.cu.begin(), shape.cu.end(), cu.view().as<int32_t>());
    uint64_t seed = 1;
    for (const auto& [name, t] : inputs()) normal(t, seed++, 1);
    normal(A_log.view(), seed++, 0.5);
    poison();
  }

  static void normal(const Tensor& t, uint64_t seed, double stddev, double mean = 0) {
    fill_normal(t, seed, stddev, mean);
    for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, float(element(t, i)));
  }
  // Sets every gate logit so that the log decay is about value(n, head, channel) <= 0 (softplus
  // law; of Mamba2 the step is minus that). A gate a head is channel 0.
  void decay(const std::function<double(int64_t, int64_t, int64_t)>& value) {
    const int64_t channels = Op::kGateByChannel ? shape.K : 1;
    fill(A_log.view(), 0);
    fill(dt_bias.view(), 0);
    for (int64_t i = 0; i < g.view().numel(); ++i) {
      const int64_t d = i % channels, hv = i / channels % shape.HV, n = i / channels / shape.HV;
      const double decay = -value(n, hv, d);  // softplus^-1(x) = log(e^x - 1)
      const double z = decay > 30 ? decay : decay < 1e-30 ? -200 : std::log(std::expm1(decay));
      set_element(g.view(), i, float(z));
    }
  }

  using Named = std::vector<std::pair<std::string, Tensor>>;
  Named inputs() const {
    return without_beta({{"q", q.view()},
                         {"k", k.view()},
                         {"v", v.view()},
                         {"g", g.view()},
                         {"beta", beta.view()},
                         {"A_log", A_log.view()},
                         {"dt_bias", dt_bias.view()},
                         {"initial_state", s0.view()},
                         {"d_o", d_o.view()},
                         {"dfinal_state", ds1.view()}});
  }
  Named outputs() const { return {{"o", o.view()}, {"final_state", s1.view()}}; }
  // In the order of inputs().
  Named gradients() const {
    return without_beta({{"dq", dq.view()},
                         {"dk", dk.view()},
                         {"dv", dv.view()},
                         {"dg", dg.view()},
                         {"dbeta", dbeta.view()},
                         {"dA_log", dA_log.view()},
                         {"ddt_bias", ddt_bias.view()},
                         {"dinitial_state", ds0.view()}});
  }
  Named results() const {
    Named all = outputs();
    for (const auto& x : gradients()) all.push_back(x);
    return all;
  }
  void poison() {
    for (const auto& [name, t] : results()) fill(t, NAN);
  }

  Forward forward_args() const {
    Forward a{.q = q.view(),
              .k = k.view(),
              .v = v.view(),
              .g = g.view(),
              .beta = has_beta() ? beta.view() : Tensor{},
              .A_log = A_log.view(),
              .dt_bias = dt_bias.view(),
              .cu_seqlens = cu.view(),
              .initial_state = {},
              .o = o.view(),
              .final_state = {},
              .saved = {},
              .params = shape.params};
    if (has_initial()) a.initial_state = s0.view();
    if (has_final()) a.final_state = s1.view();
    return a;
  }
  Backward backward_args() const {
    Backward a{.q = q.view(),
               .k = k.view(),
               .v = v.view(),
               .g = g.view(),
               .beta = has_beta() ? beta.view() : Tensor{},
               .A_log = A_log.view(),
               .dt_bias = dt_bias.view(),
               .cu_seqlens = cu.view(),
               .initial_state = {},
               .saved = saved.view(),
               .d_o = d_o.view(),
               .dfinal_state = {},
               .dq = {dq.view()},
               .dk = {dk.view()},
               .dv = {dv.view()},
               .dg = {dg.view()},
               .dbeta = has_beta() ? Grad{dbeta.view()} : Grad{},
               .dA_log = {dA_log.view()},
               .ddt_bias = {ddt_bias.view()},
               .dinitial_state = {},
               .params = shape.params};
    if (has_initial()) a.initial_state = s0.view(), a.dinitial_state = {ds0.view()};
    if (has_final()) a.dfinal_state = ds1.view();
    return a;
  }
  void allocate_saved(const Context& ctx) {
    saved = Buffer(DType::u8, {Op::saved_bytes(ctx, forward_args())});
    std::fill_n(static_cast<uint8_t*>(saved.view().data), saved.view().numel(),
                uint8_t(0xff));  // NaN
  }
  void forward(const Context& ctx) {
    allocate_saved(ctx);
    Forward a = forward_args();
    a.saved = saved.view();
    Op::forward(ctx, a);
  }
  void run(const Context& ctx) {  // forward, then backward
    forward(ctx);
    Op::backward(ctx, backward_args());
  }
  // <d_o, o> + <dfinal_state, final_state>: what the gradients are of.
  double loss(const Context& ctx) {
    Op::forward(ctx, forward_args());
    return dot(o.view(), d_o.view()) + (has_final() ? dot(s1.view(), ds1.view()) : 0);
  }
  void take_inputs(const RecurrenceProblem& from) {
    with_states = from.with_states;
    with_initial = from.with_initial, with_final = from.with_final;
    const Named to = inputs(), source = from.inputs();
    for (size_t i = 0; i < to.size(); ++i)
      for (int64_t e = 0; e < to[i].second.numel(); ++e)
        set_element(to[i].second, e, element(source[i].second, e));
  }

  bool has_beta() const { return Op::has_beta(shape.params); }
  bool has_initial() const { return with_states && with_initial; }
  bool has_final() const { return with_states && with_final; }

  RecurrenceShape<Op> shape;
  DType type;
  bool with_states = true;                      // both, and their gradients
  bool with_initial = true, with_final = true;  // each of the two
  Buffer q, k, v, g, beta, A_log, dt_bias, cu, s0, d_o, ds1;
  Buffer o, s1, dq, dk, dv, dg, dbeta, dA_log, ddt_bias, ds0;
  Buffer saved;

 private:
  // [..., HV, K], or [..., HV] where a head has one gate.
  static Buffer gate_buffer(DType t, std::initializer_list<int64_t> shape) {
    if (Op::kGateByChannel) return Buffer(t, shape);
    const int64_t* d = shape.begin();
    return shape.size() == 3 ? Buffer(t, {d[0], d[1]}) : Buffer(t, {d[0]});
  }
  Named without_beta(Named all) const {
    if (!has_beta()) std::erase_if(all, [](const auto& x) { return x.first.ends_with("beta"); });
    return all;
  }
};

}  // namespace sluice::test
