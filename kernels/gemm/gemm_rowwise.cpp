// kernels/gemm/gemm_rowwise.cpp -- dot products in 64-byte lanes, sixteen at a time.
//
// Lane l of an element's accumulator is the sum over k = l, l + n, l + 2n, ... in order (n lanes a
// vector); then lanes are added pairwise, l and l + n/2 first. All tile shapes below do just this
// for each of their elements, so that the shape does not matter.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/gemm/gemm.h"

namespace sluice {

namespace {

template <class T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(64)));
  static constexpr int n = 64 / sizeof(T);
};

template <class T>
typename Lanes<T>::Vector load(const T* p) {
  typename Lanes<T>::Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
typename Lanes<T>::Vector load_part(const T* p, int64_t count) {  // zeros beyond count
  typename Lanes<T>::Vector v = {};
  std::memcpy(&v, p, size_t(count) * sizeof(T));
  return v;
}

// Vectors x and y hold sums in groups of 2 * Half lanes; the result holds x's groups, then y's,
// each folded to Half lanes.
template <class T, int Half, size_t... I>
typename Lanes<T>::Vector fold_pair(typename Lanes<T>::Vector x, typename Lanes<T>::Vector y,
                                    std::index_sequence<I...>) {
  return __builtin_shufflevector(x, y, int(I / Half * 2 * Half + I % Half)...) +
         __builtin_shufflevector(x, y, int(I / Half * 2 * Half + I % Half + Half)...);
}

// sums[v] = all lanes of acc[v], v = 0 .. n-1.
template <class T, int Half = Lanes<T>::n / 2>
typename Lanes<T>::Vector fold(typename Lanes<T>::Vector* acc) {
  for (int v = 0; v < Half; ++v)
    acc[v] =
        fold_pair<T, Half>(acc[2 * v], acc[2 * v + 1], std::make_index_sequence<Lanes<T>::n>());
  if constexpr (Half > 1)
    return fold<T, Half / 2>(acc);
  else
    return acc[0];
}

// c[R, columns] of rows a and b; columns <= C, the rest is not written.
template <class T, int R, int C>
void tile(int64_t K, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t columns, T* c,
          int64_t ldc) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int n = Lanes<T>::n;
  static_assert(R * C % n == 0);
  const T* b_row[C];
  for (int j = 0; j < C; ++j) b_row[j] = b + std::min<int64_t>(j, columns - 1) * ldb;
  Vector acc[R * C] = {};
  auto step = [&](auto vector) __attribute__((always_inline)) {
    Vector x[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) x[i] = vector(a + i * lda);
#pragma GCC unroll 16
    for (int j = 0; j < C; ++j) {
      const Vector y = vector(b_row[j]);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) acc[i * C + j] += x[i] * y;
    }
  };
  int64_t k = 0;
  for (; k + n <= K; k += n) step([&](const T* row) { return load(row + k); });
  if (k < K) step([&](const T* row) { return load_part(row + k, K - k); });
  T sums[R * C];
  for (int v = 0; v < R * C; v += n) {
    const Vector s = fold<T>(acc + v);
    std::memcpy(sums + v, &s, sizeof s);
  }
  for (int i = 0; i < R; ++i) std::copy_n(sums + i * C, columns, c + i * ldc);
}

template <class T, int R, int C>
void strip(int64_t N, int64_t K, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
           int64_t ldc) {
  for (int64_t j = 0; j < N; j += C)
    tile<T, R, C>(K, a, lda, b + j * ldb, ldb, std::min<int64_t>(C, N - j), c + j, ldc);
}

}  // namespace

template <class T>
void gemm_rowwise(int64_t M, int64_t N, int64_t K, const T* a, int64_t lda, const T* b, int64_t ldb,
                  T* c, int64_t ldc) {
  int64_t i = 0;
  for (; i + 4 <= M; i += 4) strip<T, 4, 4>(N, K, a + i * lda, lda, b, ldb, c + i * ldc, ldc);
  for (; i + 2 <= M; i += 2) strip<T, 2, 8>(N, K, a + i * lda, lda, b, ldb, c + i * ldc, ldc);
  for (; i < M; ++i) strip<T, 1, 16>(N, K, a + i * lda, lda, b, ldb, c + i * ldc, ldc);
}

template void gemm_rowwise<float>(int64_t, int64_t, int64_t, const float*, int64_t, const float*,
                                  int64_t, float*, int64_t);
template void gemm_rowwise<double>(int64_t, int64_t, int64_t, const double*, int64_t, const double*,
                                   int64_t, double*, int64_t);

}  // namespace sluice
