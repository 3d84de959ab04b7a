// kernels/bench/recurrence.h -- a problem for the benchmarks of KDA and GDN, on either device.
#pragma once

#include <functional>

#include "kernels/tensor/context.h"

namespace sluice::bench {

struct RecurrenceShape {
  int64_t documents, tokens;  // of each
  int64_t heads, dim;         // as many value heads; K = V
  int64_t N() const { return documents * tokens; }
};

// An input of about N(0, 1).
using Noise = std::function<Buffer(std::initializer_list<int64_t> shape, uint64_t seed)>;
// One number throughout.
using Constant = std::function<Buffer(std::initializer_list<int64_t> shape, float value)>;

template <class Op>  // KdaOp, GdnOp
struct Recurrence {
  using Forward = typename Op::Forward;
  using Backward = typename Op::Backward;

  // A_log and dt_bias are A and bias throughout.
  Recurrence(const RecurrenceShape& s, const Noise& noise, const Constant& constant, float A,
             float bias, Buffer cu_seqlens)
      : q(noise({s.N(), s.heads, s.dim}, 1)),
        k(noise({s.N(), s.heads, s.dim}, 2)),
        v(noise({s.N(), s.heads, s.dim}, 3)),
        d_o(noise({s.N(), s.heads, s.dim}, 4)),
        g(noise({s.N(), s.heads, Op::kGateByChannel ? s.dim : 1}, 5)),
        beta(noise({s.N(), s.heads}, 6)),
        A_log(constant({s.heads}, A)),
        dt_bias(constant({s.heads, Op::kGateByChannel ? s.dim : 1}, bias)),
        cu(std::move(cu_seqlens)),
        o(v.view()),
        dq(q.view()),
        dk(k.view()),
        dv(v.view()),
        dg(g.view()),
        dbeta(beta.view()),
        dA_log(A_log.view()),
        ddt_bias(dt_bias.view()) {}

  Forward forward(const typename Op::Params& params) const {
    return {.q = q.view(),
            .k = k.view(),
            .v = v.view(),
            .g = gate(g),
            .beta = Op::has_beta(params) ? beta.view() : Tensor{},
            .A_log = A_log.view(),
            .dt_bias = gate(dt_bias),
            .cu_seqlens = cu.view(),
            .initial_state = {},
            .o = o.view(),
            .final_state = {},
            .saved = {},
            .params = params};
  }
  // Of a forward pass that kept what it needs.
  Backward backward(const Forward& f) const {
    return {.q = f.q,
            .k = f.k,
            .v = f.v,
            .g = f.g,
            .beta = f.beta,
            .A_log = f.A_log,
            .dt_bias = f.dt_bias,
            .cu_seqlens = f.cu_seqlens,
            .initial_state = {},
            .saved = f.saved,
            .d_o = d_o.view(),
            .dfinal_state = {},
            .dq = {dq.view()},
            .dk = {dk.view()},
            .dv = {dv.view()},
            .dg = {gate(dg)},
            .dbeta = {f.beta ? dbeta.view() : Tensor{}},
            .dA_log = {dA_log.view()},
            .ddt_bias = {gate(ddt_bias)},
            .dinitial_state = {},
            .params = f.params};
  }

  Buffer q, k, v, d_o, g, beta, A_log, dt_bias, cu;
  Buffer o, dq, dk, dv, dg, dbeta, dA_log, ddt_bias;

 private:
  // The last dimension, of one channel, is none of the op's.
  static Tensor gate(const Buffer& b) {
    const Tensor t = b.view();
    if (Op::kGateByChannel) return t;
    return t.rank == 3 ? t.reshape({t.dim(0), t.dim(1)}) : t.reshape({t.dim(0)});
  }
};

}  // namespace sluice::bench
