// kernels/chunks/chunks.h -- what the chunked recurrences (kda, gdn) share on the CPU.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/tensor/tensor.h"

namespace sluice::chunks {

// x . y in 64-byte lanes: written as vectors because compilers rarely find them in a sum.
template <class T>
inline T dot(const T* x, const T* y, int64_t n) {
  constexpr int kLane = 64 / sizeof(T);
  typedef T Lane __attribute__((vector_size(64)));
  Lane sum = {};
  int64_t i = 0;
  for (; i + kLane <= n; i += kLane) {
    Lane a, b;
    std::memcpy(&a, x + i, sizeof a);
    std::memcpy(&b, y + i, sizeof b);
    sum += a * b;
  }
  T lane[kLane];
  std::memcpy(lane, &sum, sizeof lane);
  for (int l = 0; i < n; ++i, ++l) lane[l] += x[i] * y[i];
  for (int half = kLane / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

constexpr int64_t kAhead = 6;  // rows between asking for one and reading it

// Asks for a row early: a head's rows lie a token's stride apart, which hardware does not foresee.
template <class T>
void prefetch(const T* row, int64_t n) {
  for (int64_t e = 0; e < n; e += int64_t(64 / sizeof(T))) __builtin_prefetch(row + e);
}

// Number of the first chunk of each document, chunks being counted document by document.
inline std::vector<int64_t> first_chunks(const Tensor& cu_seqlens, int64_t chunk) {
  const int64_t documents = cu_seqlens.dim(0) - 1;
  const int32_t* cu = cu_seqlens.as<int32_t>();
  std::vector<int64_t> first(size_t(documents) + 1, 0);
  for (int64_t d = 0; d < documents; ++d)
    first[size_t(d) + 1] = first[size_t(d)] + (cu[d + 1] - cu[d] + chunk - 1) / chunk;
  return first;
}

// dx = r (dxn - xn (xn . dxn)), xn = x r: [K] of a row, added or written.
template <class T>
void norm_backward(const T* x, T r, const T* dxn, T scale, int64_t K, T* out, bool add) {
  const T along = r * r * dot(x, dxn, K);
  if (add)
    for (int64_t d = 0; d < K; ++d) out[d] += scale * r * (dxn[d] - x[d] * along);
  else
    for (int64_t d = 0; d < K; ++d) out[d] = scale * r * (dxn[d] - x[d] * along);
}

}  // namespace sluice::chunks
