// kernels/tensor/lanes.h -- sums in 16 interleaved lanes: a fixed order that is also SIMD's.
//
// A compiler may not reorder a floating-point sum by itself; written in lanes it need not.
#pragma once

#include <cstdint>

namespace sluice {

constexpr int kLanes = 16;

// sum over i of term(i), i = 0 .. n-1: lane i % 16 first, then the lanes pairwise.
template <class T, class Term>
inline T lane_sum(int64_t n, Term term) {
  T lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += term(i + l);
  for (int l = 0; i < n; ++i, ++l) lane[l] += term(i);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

// The largest term(i), i = 0 .. n-1, n > 0. NaN may be passed over.
template <class T, class Term>
inline T lane_max(int64_t n, Term term) {
  T lane[kLanes];
  for (int l = 0; l < kLanes; ++l) lane[l] = term(0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] = term(i + l) > lane[l] ? term(i + l) : lane[l];
  for (int l = 0; i < n; ++i, ++l) lane[l] = term(i) > lane[l] ? term(i) : lane[l];
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
  return lane[0];
}

// out[c] (+)= sum over blocks b of parts[b * C + c], in order of b.
template <class T>
inline void sum_parts(const T* parts, int64_t blocks, int64_t C, T* out, bool add) {
  for (int64_t c = 0; c < C && !add; ++c) out[c] = 0;
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < C; ++c) out[c] += parts[b * C + c];
}

}  // namespace sluice
