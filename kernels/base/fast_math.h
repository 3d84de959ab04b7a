// kernels/base/fast_math.h -- exp and what is made of it, in a form that compilers vectorise.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace sluice {

// exp(x) without branches or calls, so that loops over it become SIMD. f32: x = n ln 2 + r with
// |r| <= ln 2 / 2, a degree-7 polynomial, and the exponent put in by two exact factors so that
// results below the normal range still come out; within 2 ulp (tests/kernels/fast_math_test.cpp).
// 0 below -104, infinity above 88.8, NaN stays NaN.
inline float fast_exp(float x) {
  float c = x > -104.0f ? x : -104.0f;  // NaN too: its cast to an integer would be undefined
  c = c > 89.0f ? 89.0f : c;
  const float n = std::nearbyint(c * 1.44269504088896341f);
  float r = std::fma(n, -0.693359375f, c);  // ln 2 in two parts, the first exact in few bits
  r = std::fma(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  p = std::fma(p, r * r, r + 1.0f);
  const int32_t i = int32_t(n), half = i >> 1;
  const int32_t bits_a = (half + 127) << 23, bits_b = (i - half + 127) << 23;
  float a, b;
  std::memcpy(&a, &bits_a, sizeof a);
  std::memcpy(&b, &bits_b, sizeof b);
  const float y = p * a * b;
  return x != x ? x : y;
}
inline double fast_exp(double x) {
  return std::exp(x);
}

template <class T>
inline T fast_sigmoid(T x) {
  return 1 / (1 + fast_exp(-x));
}
template <class T>
inline T fast_silu(T x) {
  return x * fast_sigmoid(x);
}

// log(1 + exp(x)) = max(x, 0) + log1p(u), u = exp(-|x|) in (0, 1], and
// log1p(u) = 2 atanh(w), w = u / (2 + u) <= 1/3: seven terms leave 1e-8 of it.
inline float fast_softplus(float x) {
  const float u = fast_exp(-std::fabs(x)), w = u / (2 + u), s = w * w;
  float p = 1.0f / 13;
  p = std::fma(p, s, 1.0f / 11);
  p = std::fma(p, s, 1.0f / 9);
  p = std::fma(p, s, 1.0f / 7);
  p = std::fma(p, s, 1.0f / 5);
  p = std::fma(p, s, 1.0f / 3);
  p = std::fma(p, s, 1.0f);
  return (x > 0 ? x : 0) + 2 * w * p;
}
inline double fast_softplus(double x) {
  return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x)));
}

}  // namespace sluice
