// model/generate/sample.cpp -- inversion of the cumulative distribution, in f64.
#include "model/generate/sample.h"

#include <cmath>

#include "kernels/tensor/rng.h"

namespace sluice {

static double at(const Tensor& t, int64_t i) {
  return t.dtype == DType::f64 ? t.as<double>()[i] : double(t.as<float>()[i]);
}

int32_t argmax(const Tensor& logits) {
  SLUICE_CHECK(logits.numel() > 0, "no logits");
  int64_t best = 0;
  for (int64_t i = 1; i < logits.numel(); ++i)
    if (at(logits, i) > at(logits, best)) best = i;
  SLUICE_CHECK(std::isfinite(at(logits, best)), "the largest logit is ", at(logits, best));
  return int32_t(best);
}

int32_t sample(const Tensor& logits, double temperature, uint64_t key, int64_t position) {
  SLUICE_CHECK(temperature > 0, "temperature is ", temperature);
  const double top = at(logits, argmax(logits));
  auto weight = [&](int64_t i) { return std::exp((at(logits, i) - top) / temperature); };
  double sum = 0;
  for (int64_t i = 0; i < logits.numel(); ++i) sum += weight(i);
  double left = sum * random_uniform(key, uint64_t(position));
  int64_t last = 0;  // of nonzero weight: where rounding may leave us
  for (int64_t i = 0; i < logits.numel(); ++i) {
    const double w = weight(i);
    if (w > 0) last = i;
    left -= w;
    if (left < 0) return int32_t(i);
  }
  return int32_t(last);
}

}  // namespace sluice
