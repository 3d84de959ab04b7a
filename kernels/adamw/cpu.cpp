// kernels/adamw/cpu.cpp -- blocks of elements, one pass over the four arrays.
#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/rounding_blocks.h"

namespace sluice::cpu {

constexpr int64_t kElements = 1 << 14;

template <class T>
struct Constants {
  T lr, scale, b1, b2, c1, c2, m_fix, v_fix, eps, decay;
};

template <class T>
static Constants<T> constants_of(const AdamW& a) {
  const double step = double(a.state->step);
  return {.lr = T(a.state->lr * a.lr_scale),
          .scale = T(a.state->grad_scale),
          .b1 = T(a.beta1),
          .b2 = T(a.beta2),
          .c1 = T(1 - a.beta1),
          .c2 = T(1 - a.beta2),
          .m_fix = T(1 / (1 - std::pow(a.beta1, step))),
          .v_fix = T(1 / (1 - std::pow(a.beta2, step))),
          .eps = T(a.eps),
          .decay = T(a.weight_decay)};
}

template <class T>
static void update(const Constants<T>& k, T* __restrict p, const T* __restrict grad,
                   T* __restrict m, T* __restrict v, int64_t n) {
  const auto [lr, scale, b1, b2, c1, c2, m_fix, v_fix, eps, decay] = k;
  for (int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * scale;
    m[i] = b1 * m[i] + c1 * g;
    v[i] = b2 * v[i] + c2 * g * g;
    p[i] -= lr * (decay * p[i] + m[i] * m_fix / (std::sqrt(v[i] * v_fix) + eps));
  }
}

// Elements begin .. end: m and v are widened, changed as others are, and rounded.
static void update_bf16(const AdamW& a, const Constants<float>& k, int64_t begin, int64_t end) {
  RoundingBlock random;
  float m[RoundingBlock::kMost], v[RoundingBlock::kMost];
  for (int64_t i = begin; i < end; i += RoundingBlock::kMost) {
    const int64_t n = std::min(end - i, RoundingBlock::kMost);
    uint16_t *m16 = static_cast<uint16_t*>(a.m.data) + i,
             *v16 = static_cast<uint16_t*>(a.v.data) + i;
    for (int64_t j = 0; j < n; ++j) m[j] = widen_bf16(m16[j]), v[j] = widen_bf16(v16[j]);
    update(k, a.param.as<float>() + i, a.grad.as<float>() + i, m, v, n);
    const uint32_t* r = random.draw(a.rounding, i, n, a.state->step);
    for (int64_t j = 0; j < n; ++j) {
      m16[j] = round_stochastic(m[j], r[j] & 0xffff);
      v16[j] = round_stochastic(v[j], r[j] >> 16);
    }
  }
}

static void update(const Context& ctx, const AdamW& a) {
  const int64_t n = a.param.dim(0);
  for_float_type(a.param, [&]<class T>(T) {
    const Constants<T> k = constants_of<T>(a);
    parallel_for(ctx, (n + kElements - 1) / kElements, [&](int64_t block) {
      const int64_t begin = block * kElements, end = std::min(n, begin + kElements);
      if constexpr (std::is_same_v<T, float>)
        if (a.m.dtype == DType::bf16) return update_bf16(a, k, begin, end);
      update(k, a.param.as<T>() + begin, a.grad.as<T>() + begin, a.m.as<T>() + begin,
             a.v.as<T>() + begin, end - begin);
    });
  });
}

void adamw(const Context& ctx, std::span<const AdamW> list) {
  if (list.front().state->skip) return;
  for (const AdamW& a : list) update(ctx, a);
}

}  // namespace sluice::cpu
