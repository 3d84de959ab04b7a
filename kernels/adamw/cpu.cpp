// kernels/adamw/cpu.cpp -- blocks of elements, one pass over the four arrays.
#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kElements = 1 << 14;

static void update(const Context& ctx, const AdamW& a) {
  const int64_t n = a.param.dim(0);
  const double step = double(a.state->step);
  for_float_type(a.param, [&]<class T>(T) {
    const T lr = T(a.state->lr * a.lr_scale), scale = T(a.state->grad_scale);
    const T b1 = T(a.beta1), b2 = T(a.beta2), c1 = T(1 - a.beta1), c2 = T(1 - a.beta2);
    const T m_fix = T(1 / (1 - std::pow(a.beta1, step))),
            v_fix = T(1 / (1 - std::pow(a.beta2, step)));
    const T eps = T(a.eps), decay = T(a.weight_decay);
    parallel_for(ctx, (n + kElements - 1) / kElements, [&](int64_t block) {
      T* __restrict p = a.param.as<T>(), * __restrict m = a.m.as<T>(), * __restrict v = a.v.as<T>();
      const T* __restrict grad = a.grad.as<T>();
      for (int64_t i = block * kElements; i < std::min(n, (block + 1) * kElements); ++i) {
        const T g = grad[i] * scale;
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * g * g;
        p[i] -= lr * (decay * p[i] + m[i] * m_fix / (std::sqrt(v[i] * v_fix) + eps));
      }
    });
  });
}

void adamw(const Context& ctx, std::span<const AdamW> list) {
  if (list.front().state->skip) return;
  for (const AdamW& a : list) update(ctx, a);
}

}  // namespace sluice::cpu
