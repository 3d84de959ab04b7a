// tests/kernels/gdn_problem.h -- one GDN problem with everything around it, for the tests of the
// operator.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gdn/gdn.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice::test {

struct GdnShape {
  int64_t H = 2, HV = 2, K = 8, V = 6;
  std::vector<int32_t> cu{0, 20};
  GdnParams params;
  int64_t N() const { return cu.back(); }
  int64_t documents() const { return int64_t(cu.size()) - 1; }
};

// Inputs, outputs and gradients, all allocated. Outputs are NaN before a run, so that what no op
// wrote shows. Every input is a value that f32 holds, so that an f32 copy is the same problem.
struct GdnProblem {
  explicit GdnProblem(GdnShape s, DType t = DType::f64)
      : shape(std::move(s)),
        type(t),
        q(t, {shape.N(), shape.H, shape.K}),
        k(q.view()),
        v(t, {shape.N(), shape.HV, shape.V}),
        g(t, {shape.N(), shape.HV}),
        beta(t, {shape.N(), shape.HV}),
        A_log(t, {shape.HV}),
        dt_bias(t, {shape.HV}),
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
  // Sets every gate logit so that the log decay is about value(n, head) <= 0, and the step minus
  // it.
  void decay(const std::function<double(int64_t, int64_t)>& value) {
    fill(A_log.view(), 0);
    fill(dt_bias.view(), 0);
    for (int64_t i = 0; i < g.view().numel(); ++i) {
      const double decay = -value(i / shape.HV, i % shape.HV);  // softplus^-1(x) = log(e^x - 1)
      const double z = decay > 30 ? decay : decay < 1e-30 ? -200 : std::log(std::expm1(decay));
      set_element(g.view(), i, float(z));
    }
  }

  using Named = std::vector<std::pair<std::string, Tensor>>;
  Named inputs() const {
    Named all{{"q", q.view()},
              {"k", k.view()},
              {"v", v.view()},
              {"g", g.view()},
              {"A_log", A_log.view()},
              {"dt_bias", dt_bias.view()},
              {"initial_state", s0.view()}};
    if (shape.params.delta_rule) all.push_back({"beta", beta.view()});
    all.push_back({"d_o", d_o.view()});
    all.push_back({"dfinal_state", ds1.view()});
    return all;
  }
  Named outputs() const { return {{"o", o.view()}, {"final_state", s1.view()}}; }
  // In the order of inputs().
  Named gradients() const {
    Named all{{"dq", dq.view()},
              {"dk", dk.view()},
              {"dv", dv.view()},
              {"dg", dg.view()},
              {"dA_log", dA_log.view()},
              {"ddt_bias", ddt_bias.view()},
              {"dinitial_state", ds0.view()}};
    if (shape.params.delta_rule) all.push_back({"dbeta", dbeta.view()});
    return all;
  }
  Named results() const {
    Named all = outputs();
    for (const auto& x : gradients()) all.push_back(x);
    return all;
  }
  void poison() {
    for (const auto& [name, t] : results()) fill(t, NAN);
  }

  GdnForward forward_args() const {
    GdnForward a{.q = q.view(),
                 .k = k.view(),
                 .v = v.view(),
                 .g = g.view(),
                 .beta = shape.params.delta_rule ? beta.view() : Tensor{},
                 .A_log = A_log.view(),
                 .dt_bias = dt_bias.view(),
                 .cu_seqlens = cu.view(),
                 .initial_state = {},
                 .o = o.view(),
                 .final_state = {},
                 .saved = {},
                 .params = shape.params};
    if (with_states) a.initial_state = s0.view(), a.final_state = s1.view();
    return a;
  }
  GdnBackward backward_args() const {
    GdnBackward a{.q = q.view(),
                  .k = k.view(),
                  .v = v.view(),
                  .g = g.view(),
                  .beta = shape.params.delta_rule ? beta.view() : Tensor{},
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
                  .dbeta = shape.params.delta_rule ? Grad{dbeta.view()} : Grad{},
                  .dA_log = {dA_log.view()},
                  .ddt_bias = {ddt_bias.view()},
                  .dinitial_state = {},
                  .params = shape.params};
    if (with_states)
      a.initial_state = s0.view(), a.dfinal_state = ds1.view(), a.dinitial_state = {ds0.view()};
    return a;
  }
  void allocate_saved(const Context& ctx) {
    saved = Buffer(DType::u8, {gdn_saved_bytes(ctx, forward_args())});
    std::fill_n(static_cast<uint8_t*>(saved.view().data), saved.view().numel(),
                uint8_t(0xff));  // NaN
  }
  void forward(const Context& ctx) {
    allocate_saved(ctx);
    GdnForward a = forward_args();
    a.saved = saved.view();
    gdn_forward(ctx, a);
  }
  void run(const Context& ctx) {  // forward, then backward
    forward(ctx);
    gdn_backward(ctx, backward_args());
  }
  // <d_o, o> + <dfinal_state, final_state>: what the gradients are of.
  double loss(const Context& ctx) {
    gdn_forward(ctx, forward_args());
    return dot(o.view(), d_o.view()) + (with_states ? dot(s1.view(), ds1.view()) : 0);
  }
  void take_inputs(const GdnProblem& from) {
    with_states = from.with_states;
    const Named to = inputs(), source = from.inputs();
    for (size_t i = 0; i < to.size(); ++i)
      for (int64_t e = 0; e < to[i].second.numel(); ++e)
        set_element(to[i].second, e, element(source[i].second, e));
  }

  GdnShape shape;
  DType type;
  bool with_states = true;
  Buffer q, k, v, g, beta, A_log, dt_bias, cu, s0, d_o, ds1;
  Buffer o, s1, dq, dk, dv, dg, dbeta, dA_log, ddt_bias, ds0;
  Buffer saved;
};

}  // namespace sluice::test
