// kernels/moe/route/reference.cpp -- plain loops in the order of the formula; never optimised.
// In T and not in f64: scores that T cannot tell apart are a tie, here as in every back end.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/moe/route/route.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

template <class T>
static void score(RouterScore kind, int64_t E, const T* z, T* s) {
  T max = z[0], sum = 0;
  for (int64_t e = 0; e < E; ++e) max = std::max(max, z[e]);
  for (int64_t e = 0; e < E; ++e) sum += std::exp(z[e] - max);
  for (int64_t e = 0; e < E; ++e)
    s[e] = kind == RouterScore::sigmoid ? 1 / (1 + std::exp(-z[e])) : std::exp(z[e] - max) / sum;
}

template <class T>
static void choose(int64_t E, int64_t k, const T* s, const T* bias, int32_t* pick) {
  for (int64_t j = 0; j < k; ++j) {
    int64_t best = -1;
    for (int64_t e = 0; e < E; ++e) {
      const bool taken = std::find(pick, pick + j, int32_t(e)) != pick + j;
      if (!taken && (best < 0 || s[e] + bias[e] > s[best] + bias[best])) best = e;
    }
    pick[j] = int32_t(best);
  }
}

void route_forward(const Context&, const RouteForward& a) {
  const int64_t E = a.logits.dim(1), k = a.experts.dim(1);
  for_float_type(a.logits, [&]<class T>(T) {
    for (int64_t n = 0; n < a.logits.dim(0); ++n) {
      T *s = a.scores.row<T>(n), *w = a.weights.row<T>(n);
      int32_t* pick = a.experts.row<int32_t>(n);
      score(a.params.score, E, a.logits.row<T>(n), s);
      if (a.given)
        std::copy(a.given.row<int32_t>(n), a.given.row<int32_t>(n) + k, pick);
      else
        choose(E, k, s, a.bias.as<T>(), pick);
      T sum = 0;
      for (int64_t j = 0; j < k; ++j) sum += s[pick[j]];
      const T divisor = a.params.renormalize && k > 1 ? sum + T(1e-20) : 1;
      for (int64_t j = 0; j < k; ++j) w[j] = T(a.params.scale) * (s[pick[j]] / divisor);
    }
  });
}

void route_backward(const Context&, const RouteBackward& a) {
  const int64_t E = a.scores.dim(1), k = a.experts.dim(1);
  for_float_type(a.scores, [&]<class T>(T) {
    std::vector<T> ds(static_cast<size_t>(E));
    for (int64_t n = 0; n < a.scores.dim(0); ++n) {
      const T *s = a.scores.row<T>(n), *dw = a.dweights.row<T>(n);
      const int32_t* pick = a.experts.row<int32_t>(n);
      T sum = 0, dot = 0;  // of the chosen: scores, gradients times shares
      for (int64_t j = 0; j < k; ++j) sum += s[pick[j]];
      const bool share = a.params.renormalize && k > 1;
      const T divisor = share ? sum + T(1e-20) : 1;
      for (int64_t j = 0; share && j < k; ++j) dot += dw[j] * (s[pick[j]] / divisor);
      std::fill(ds.begin(), ds.end(), T(0));
      for (int64_t j = 0; j < k; ++j)
        ds[size_t(pick[j])] = T(a.params.scale) * (dw[j] - dot) / divisor;

      T mean = 0;  // of ds under the softmax
      for (int64_t e = 0; e < E; ++e) mean += ds[size_t(e)] * s[e];
      for (int64_t e = 0; e < E; ++e)
        put(a.dlogits.t.row<T>(n)[e],
            a.params.score == RouterScore::sigmoid ? ds[size_t(e)] * s[e] * (1 - s[e])
                                                   : s[e] * (ds[size_t(e)] - mean),
            a.dlogits.add);
    }
  });
}

}  // namespace sluice::reference
