// kernels/adamw/reference.cpp -- the formula, element by element, in f64; never optimised.
#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

// Element i of a state, and its new value.
template <class T>
static double get(const Tensor& t, int64_t i) {
  return t.dtype == DType::bf16 ? widen_bf16(static_cast<const uint16_t*>(t.data)[i])
                                : double(t.as<T>()[i]);
}
template <class T>
static void put(const Tensor& t, int64_t i, double x, uint32_t random) {
  if (t.dtype == DType::bf16)
    static_cast<uint16_t*>(t.data)[i] = round_stochastic(float(x), random);
  else
    t.as<T>()[i] = T(x);
}

static void update(const AdamW& a) {
  const double lr = a.state->lr * a.lr_scale, step = double(a.state->step);
  for_float_type(a.param, [&]<class T>(T) {
    for (int64_t i = 0; i < a.param.dim(0); ++i) {
      const double g = double(a.grad.as<T>()[i]) * a.state->grad_scale;
      const double m = a.beta1 * get<T>(a.m, i) + (1 - a.beta1) * g;
      const double v = a.beta2 * get<T>(a.v, i) + (1 - a.beta2) * g * g;
      const double p = a.param.as<T>()[i];
      const double m_hat = m / (1 - std::pow(a.beta1, step)),
                   v_hat = v / (1 - std::pow(a.beta2, step));
      const uint32_t random = rounding_bits(a.rounding.key, a.rounding.begin + i, a.state->step);
      put<T>(a.m, i, m, random & 0xffff);
      put<T>(a.v, i, v, random >> 16);
      a.param.as<T>()[i] = T(p - lr * (a.weight_decay * p + m_hat / (std::sqrt(v_hat) + a.eps)));
    }
  });
}

void adamw(const Context&, std::span<const AdamW> list) {
  if (list.front().state->skip) return;
  for (const AdamW& a : list) update(a);
}

}  // namespace sluice::reference
