// kernels/adamw/reference.cpp -- the formula, element by element, in f64; never optimised.
#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

static void update(const AdamW& a) {
  const double lr = a.state->lr * a.lr_scale, step = double(a.state->step);
  for_float_type(a.param, [&]<class T>(T) {
    for (int64_t i = 0; i < a.param.dim(0); ++i) {
      const double g = double(a.grad.as<T>()[i]) * a.state->grad_scale;
      const double m = a.beta1 * a.m.as<T>()[i] + (1 - a.beta1) * g;
      const double v = a.beta2 * a.v.as<T>()[i] + (1 - a.beta2) * g * g;
      const double p = a.param.as<T>()[i];
      const double m_hat = m / (1 - std::pow(a.beta1, step)),
                   v_hat = v / (1 - std::pow(a.beta2, step));
      a.m.as<T>()[i] = T(m);
      a.v.as<T>()[i] = T(v);
      a.param.as<T>()[i] = T(p - lr * (a.weight_decay * p + m_hat / (std::sqrt(v_hat) + a.eps)));
    }
  });
}

void adamw(const Context&, std::span<const AdamW> list) {
  if (list.front().state->skip) return;
  for (const AdamW& a : list) update(a);
}

}  // namespace sluice::reference
