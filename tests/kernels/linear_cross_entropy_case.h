// tests/kernels/linear_cross_entropy_case.h -- inputs and outputs of one call, filled.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/support/gradcheck.h"

namespace sluice::test {

enum class Targets { all, some_ignored, none };  // none: every row is ignored

// One problem and room for its results. Values are rounded to f32 in every dtype, so that an f32
// and an f64 case of one size have exactly the same inputs.
struct Case {
  Case(DType t, int64_t N, int64_t D, int64_t V, Targets kind = Targets::some_ignored,
       double logit_std = 1)
      : h_wide(t, {N, D + 3}),
        h(h_wide.view().columns(2, D)),
        w(t, {V, D}),
        targets(DType::i32, {N}),
        loss_scale(DType::f64, {1}),
        dloss(DType::f64, {1}),
        loss(DType::f64, {1}),
        terms(DType::f64, {2}),
        lse(t, {N}),
        nll(t, {N}),
        predicted(DType::i32, {N}),
        dh_wide(t, {N, D + 1}),
        dh(dh_wide.view().columns(0, D)),
        dw(t, {V, D}) {
    fill_rounded(h, 1, 1);
    fill_rounded(w.view(), 2, logit_std / std::sqrt(double(D)));
    int64_t valid = 0;
    for (int64_t n = 0; n < N; ++n) {
      const bool ignored = kind == Targets::none ||
                           (kind == Targets::some_ignored && random_u64(3, uint64_t(n)) % 4 == 0);
      targets.view().as<int32_t>()[n] =
          ignored ? kIgnoreIndex : int32_t(random_u64(4, uint64_t(n)) % uint64_t(V));
      valid += !ignored;
    }
    *loss_scale.view().as<double>() = 1.0 / double(std::max<int64_t>(valid, 1));
    *dloss.view().as<double>() = 1.75;
    std::fill_n(predicted.view().as<int32_t>(), N, -7);
    // What the op must write is NaN before.
    for (const Tensor& out : {loss.view(), terms.view(), lse.view(), nll.view(), dh, dw.view()})
      fill(out, NAN);
  }
  static void fill_rounded(const Tensor& t, uint64_t seed, double stddev) {
    for (int64_t i = 0; i < t.numel(); ++i)
      set_element(t, i, double(float(stddev * random_normal(seed, uint64_t(i)))));
  }

  enum class Gradients { none, written, dw_added };  // that forward makes
  double forward(const Context& ctx, Gradients gradients = Gradients::none) {
    const bool some = gradients != Gradients::none;
    linear_cross_entropy_forward(
        ctx, {.h = h,
              .w = w.view(),
              .targets = targets.view(),
              .loss_scale = loss_scale.view(),
              .loss = loss.view(),
              .terms = terms.view(),
              .lse = lse.view(),
              .nll = nll.view(),
              .predicted = predicted.view(),
              .z_loss = z_loss,
              .dh = some ? dh : Tensor{},
              .dw = some ? Grad{dw.view(), gradients == Gradients::dw_added} : Grad{}});
    return ctx.mode == Mode::plan ? 0 : *loss.view().as<double>();
  }
  void backward(const Context& ctx, bool add_dh = false, bool add_dw = false) {
    linear_cross_entropy_backward(ctx, {.h = h,
                                        .w = w.view(),
                                        .targets = targets.view(),
                                        .loss_scale = loss_scale.view(),
                                        .lse = lse.view(),
                                        .dloss = dloss.view(),
                                        .dh = {dh, add_dh},
                                        .dw = {dw.view(), add_dw},
                                        .z_loss = z_loss});
  }

  Buffer h_wide;
  Tensor h;  // rows are strided
  Buffer w, targets, loss_scale, dloss, loss, terms, lse, nll, predicted, dh_wide;
  Tensor dh;  // strided too
  Buffer dw;
  double z_loss = 0;
};

}  // namespace sluice::test
