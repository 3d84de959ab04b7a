// kernels/linear_cross_entropy/reference.cpp -- one row of logits at a time, in f64; never
// optimised.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

template <class T, class Args>
static std::vector<double> logits_of(const Args& a, int64_t n) {
  std::vector<double> z(size_t(a.w.dim(0)), 0);
  for (size_t v = 0; v < z.size(); ++v)
    for (int64_t d = 0; d < a.h.dim(1); ++d)
      z[v] += double(a.h.template row<T>(n)[d]) * a.w.template row<T>(int64_t(v))[d];
  return z;
}

void linear_cross_entropy_forward(const Context&, const LinearCrossEntropyForward& a, Tensor,
                                  Tensor nll) {
  for_float_type(a.h, [&]<class T>(T) {
    double loss = 0, z_loss = 0;
    for (int64_t n = 0; n < a.h.dim(0); ++n) {
      const std::vector<double> z = logits_of<T>(a, n);
      const auto best = std::max_element(z.begin(), z.end());
      if (a.predicted) a.predicted.as<int32_t>()[n] = int32_t(best - z.begin());
      const double top = *best;
      double sum = 0;
      for (const double x : z) sum += std::exp(x - top);
      const double lse = top + std::log(sum);
      const int32_t t = a.targets.as<int32_t>()[n];
      const double l = t == kIgnoreIndex ? 0 : lse - z[size_t(t)];
      a.lse.as<T>()[n] = T(lse);
      nll.as<T>()[n] = T(l);
      loss += l;
      if (t != kIgnoreIndex) z_loss += a.z_loss * lse * lse;
    }
    const double terms[] = {loss * *a.loss_scale.as<double>(), z_loss * *a.loss_scale.as<double>()};
    *a.loss.as<double>() = terms[0] + terms[1];
    if (a.terms) std::copy_n(terms, 2, a.terms.as<double>());
  });
}

void linear_cross_entropy_backward(const Context&, const LinearCrossEntropyBackward& a, Tensor) {
  const int64_t N = a.h.dim(0), D = a.h.dim(1), V = a.w.dim(0);
  const double scale = *a.dloss.as<double>() * *a.loss_scale.as<double>();
  for_float_type(a.h, [&]<class T>(T) {
    std::vector<double> dw(size_t(V * D), 0);
    for (int64_t n = 0; n < N; ++n) {
      const int32_t t = a.targets.as<int32_t>()[n];
      std::vector<double> dz = logits_of<T>(a, n), dh(size_t(D), 0);
      for (int64_t v = 0; v < V; ++v) {
        double& x = dz[size_t(v)];
        const double lse = a.lse.as<T>()[n], p = std::exp(x - lse);
        x = t == kIgnoreIndex ? 0 : scale * ((1 + 2 * a.z_loss * lse) * p - (v == t));
        for (int64_t d = 0; d < D; ++d) {
          dh[size_t(d)] += x * a.w.row<T>(v)[d];
          dw[size_t(v * D + d)] += x * a.h.row<T>(n)[d];
        }
      }
      for (int64_t d = 0; d < D; ++d) put(a.dh.t.row<T>(n)[d], T(dh[size_t(d)]), a.dh.add);
    }
    for (int64_t i = 0; i < V * D; ++i) put(a.dw.t.as<T>()[i], T(dw[size_t(i)]), a.dw.add);
  });
}

}  // namespace sluice::reference
