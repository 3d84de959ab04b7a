// kernels/moe/dispatch/cpu.cpp -- blocks of tokens; a routed row belongs to one token, so blocks
// share no output.
#include <algorithm>

#include "kernels/moe/dispatch/dispatch.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

constexpr int64_t kTokens = 64;  // a block

template <class Body>
static void for_tokens(const Context& ctx, int64_t N, Body body) {
  parallel_for(ctx, (N + kTokens - 1) / kTokens, [&](int64_t block) {
    for (int64_t n = block * kTokens; n < std::min(N, (block + 1) * kTokens); ++n) body(n);
  });
}

// A counting sort on one thread: some 10^4 integers beside 10^9 floating-point operations.
void dispatch_plan(const Context&, const DispatchPlan& a, const Tensor&) {
  const int64_t R = a.experts.numel(), E = a.offsets.dim(0) - 1;
  const int32_t* expert = a.experts.as<int32_t>();
  int32_t* next = a.offsets.as<int32_t>();  // first the counts, one place up
  std::fill(next, next + E + 1, 0);
  for (int64_t i = 0; i < R; ++i) ++next[expert[i] + 1];
  for (int64_t e = 0; a.counts && e < E; ++e) a.counts.as<int64_t>()[e] += next[e + 1];
  for (int64_t e = 0; e < E; ++e) next[e + 1] += next[e];
  for (int64_t i = 0; i < R; ++i) a.place.as<int32_t>()[i] = next[expert[i]]++;
  for (int64_t e = E; e > 0; --e) next[e] = next[e - 1];  // each had moved on to the next one's
  next[0] = 0;
}

void dispatch_forward(const Context& ctx, const DispatchForward& a) {
  for_float_type(a.x, [&]<class T>(T) {
    for_tokens(ctx, a.x.dim(0), [&](int64_t n) {
      for (int64_t j = 0; j < a.place.dim(1); ++j)
        std::copy_n(a.x.row<T>(n), a.x.dim(1), a.xs.row<T>(a.place.row<int32_t>(n)[j]));
    });
  });
}

void dispatch_backward(const Context& ctx, const DispatchBackward& a) {
  const int64_t D = a.dxs.dim(1), k = a.place.dim(1);
  for_float_type(a.dxs, [&]<class T>(T) {
    for_tokens(ctx, a.dx.t.dim(0), [&](int64_t n) {
      T* __restrict dx = a.dx.t.row<T>(n);
      if (!a.dx.add) std::fill_n(dx, D, T(0));
      for (int64_t j = 0; j < k; ++j) {
        const T* __restrict dxs = a.dxs.row<T>(a.place.row<int32_t>(n)[j]);
        for (int64_t d = 0; d < D; ++d) dx[d] += dxs[d];
      }
    });
  });
}

void combine_forward(const Context& ctx, const CombineForward& a) {
  const int64_t D = a.y.dim(1), k = a.place.dim(1);
  for_float_type(a.y, [&]<class T>(T) {
    for_tokens(ctx, a.y.dim(0), [&](int64_t n) {
      T* __restrict y = a.y.row<T>(n);
      std::fill_n(y, D, T(0));
      for (int64_t j = 0; j < k; ++j) {
        const T* __restrict ys = a.ys.row<T>(a.place.row<int32_t>(n)[j]);
        const T w = a.weights.row<T>(n)[j];
        for (int64_t d = 0; d < D; ++d) y[d] += w * ys[d];
      }
    });
  });
}

void combine_backward(const Context& ctx, const CombineBackward& a) {
  const int64_t D = a.dy.dim(1), k = a.place.dim(1);
  for_float_type(a.dy, [&]<class T>(T) {
    for_tokens(ctx, a.dy.dim(0), [&](int64_t n) {
      const T* __restrict dy = a.dy.row<T>(n);
      for (int64_t j = 0; j < k; ++j) {
        const int64_t r = a.place.row<int32_t>(n)[j];
        const T* __restrict ys = a.ys.row<T>(r);
        T* __restrict dys = a.dys.t.row<T>(r);
        const T w = a.weights.row<T>(n)[j];
        for (int64_t d = 0; d < D; ++d) dys[d] = a.dys.add ? dys[d] + w * dy[d] : w * dy[d];
        put(a.dweights.t.row<T>(n)[j], lane_sum<T>(D, [&](int64_t d) { return dy[d] * ys[d]; }),
            a.dweights.add);
      }
    });
  });
}

}  // namespace sluice::cpu
