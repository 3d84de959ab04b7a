// kernels/moe/route/cpu.cpp -- blocks of tokens; the best k are kept sorted while the scores pass.
#include <algorithm>

#include "kernels/base/fast_math.h"
#include "kernels/moe/route/route.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kTokens = 64;  // a block

template <class T>
static void score(RouterScore kind, int64_t E, const T* __restrict z, T* __restrict s) {
  if (kind == RouterScore::sigmoid) {
    for (int64_t e = 0; e < E; ++e) s[e] = fast_sigmoid(z[e]);
    return;
  }
  T max = z[0], sum = 0;
  for (int64_t e = 1; e < E; ++e) max = std::max(max, z[e]);
  for (int64_t e = 0; e < E; ++e) s[e] = fast_exp(z[e] - max);
  for (int64_t e = 0; e < E; ++e) sum += s[e];
  for (int64_t e = 0; e < E; ++e) s[e] /= sum;
}

// Insertion into a sorted list of at most k: an expert passes only those that it is larger than, so
// that of equals the lowest index stays in front (and NaN, larger than nothing, breaks no list).
template <class T>
static void choose(int64_t E, int64_t k, const T* s, const T* bias, int32_t* pick) {
  const auto value = [&](int64_t e) { return s[e] + bias[e]; };
  for (int64_t e = 0; e < E; ++e) {
    const T v = value(e);
    int64_t j = std::min(e, k);  // entries there are
    if (j == k && !(v > value(pick[k - 1]))) continue;
    if (j == k) --j;
    for (; j > 0 && v > value(pick[j - 1]); --j) pick[j] = pick[j - 1];
    pick[j] = int32_t(e);
  }
}

void route_forward(const Context& ctx, const RouteForward& a) {
  const int64_t N = a.logits.dim(0), E = a.logits.dim(1), k = a.experts.dim(1);
  for_float_type(a.logits, [&]<class T>(T) {
    parallel_for(ctx, (N + kTokens - 1) / kTokens, [&](int64_t block) {
      for (int64_t n = block * kTokens; n < std::min(N, (block + 1) * kTokens); ++n) {
        T *s = a.scores.row<T>(n), *w = a.weights.row<T>(n);
        int32_t* pick = a.experts.row<int32_t>(n);
        score(a.params.score, E, a.logits.row<T>(n), s);
        if (a.given)
          std::copy_n(a.given.row<int32_t>(n), k, pick);
        else
          choose(E, k, s, a.bias.as<T>(), pick);
        T sum = 0;
        for (int64_t j = 0; j < k; ++j) sum += s[pick[j]];
        const T divisor = a.params.renormalize && k > 1 ? sum + T(1e-20) : 1;
        for (int64_t j = 0; j < k; ++j) w[j] = T(a.params.scale) * (s[pick[j]] / divisor);
      }
    });
  });
}

// dz is mostly zeros with a sigmoid; with a softmax every expert's falls by s[e] mean.
template <class T>
static void backward_token(const RouteBackward& a, int64_t n) {
  const int64_t E = a.scores.dim(1), k = a.experts.dim(1);
  const T *s = a.scores.row<T>(n), *dw = a.dweights.row<T>(n);
  T* dz = a.dlogits.t.row<T>(n);
  const int32_t* pick = a.experts.row<int32_t>(n);
  const bool share = a.params.renormalize && k > 1;
  const bool softmax = a.params.score == RouterScore::softmax;
  T sum = 0, dot = 0, mean = 0;
  for (int64_t j = 0; j < k; ++j) sum += s[pick[j]];
  const T divisor = share ? sum + T(1e-20) : 1, factor = T(a.params.scale) / divisor;
  for (int64_t j = 0; share && j < k; ++j) dot += dw[j] * (s[pick[j]] / divisor);
  for (int64_t j = 0; softmax && j < k; ++j) mean += factor * (dw[j] - dot) * s[pick[j]];
  for (int64_t e = 0; e < E; ++e) put(dz[e], softmax ? -s[e] * mean : T(0), a.dlogits.add);
  for (int64_t j = 0; j < k; ++j) {
    const T p = s[pick[j]], ds = factor * (dw[j] - dot);
    dz[pick[j]] += ds * (softmax ? p : p * (1 - p));
  }
}

void route_backward(const Context& ctx, const RouteBackward& a) {
  const int64_t N = a.scores.dim(0);
  for_float_type(a.scores, [&]<class T>(T) {
    parallel_for(ctx, (N + kTokens - 1) / kTokens, [&](int64_t block) {
      for (int64_t n = block * kTokens; n < std::min(N, (block + 1) * kTokens); ++n)
        backward_token<T>(a, n);
    });
  });
}

}  // namespace sluice::cpu
