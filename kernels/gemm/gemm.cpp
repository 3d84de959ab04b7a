// kernels/gemm/gemm.cpp -- cblas, single-threaded.
#include "kernels/gemm/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <limits>
#include <string>

#include "kernels/base/check.h"

namespace sluice {

static void hold_blas_to_one_thread() {
  static const bool done = (openblas_set_num_threads(1), true);
  (void)done;
}

template <class T>
void gemm(Transpose transpose_a, Transpose transpose_b, int64_t M, int64_t N, int64_t K, T alpha,
          const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  if (M == 0 || N == 0) return;
  if (K == 0) {  // cblas would return at once and leave c unscaled
    for (int64_t m = 0; m < M; ++m)
      for (int64_t n = 0; n < N; ++n) c[m * ldc + n] = beta == 0 ? 0 : beta * c[m * ldc + n];
    return;
  }
  SLUICE_CHECK(std::max({M, N, K, lda, ldb, ldc}) <= std::numeric_limits<blasint>::max(),
               "gemm of ", M, " x ", N, " x ", K, " is past the BLAS's index type");
  hold_blas_to_one_thread();
  const auto ta = transpose_a == Transpose::yes ? CblasTrans : CblasNoTrans;
  const auto tb = transpose_b == Transpose::yes ? CblasTrans : CblasNoTrans;
  const auto m = blasint(M), n = blasint(N), k = blasint(K);
  if constexpr (sizeof(T) == 8)
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, alpha, a, blasint(lda), b, blasint(ldb), beta, c,
                blasint(ldc));
  else
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, alpha, a, blasint(lda), b, blasint(ldb), beta, c,
                blasint(ldc));
}

template void gemm<float>(Transpose, Transpose, int64_t, int64_t, int64_t, float, const float*,
                          int64_t, const float*, int64_t, float, float*, int64_t);
template void gemm<double>(Transpose, Transpose, int64_t, int64_t, int64_t, double, const double*,
                           int64_t, const double*, int64_t, double, double*, int64_t);

template <class T>
void solve_unit_lower(Transpose transpose, int64_t M, int64_t N, const T* L, int64_t ldl, T* b,
                      int64_t ldb) {
  if (M == 0 || N == 0) return;
  hold_blas_to_one_thread();
  const auto t = transpose == Transpose::yes ? CblasTrans : CblasNoTrans;
  if constexpr (sizeof(T) == 8)
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, t, CblasUnit, blasint(M), blasint(N), 1, L,
                blasint(ldl), b, blasint(ldb));
  else
    cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, t, CblasUnit, blasint(M), blasint(N), 1, L,
                blasint(ldl), b, blasint(ldb));
}

template void solve_unit_lower<float>(Transpose, int64_t, int64_t, const float*, int64_t, float*,
                                      int64_t);
template void solve_unit_lower<double>(Transpose, int64_t, int64_t, const double*, int64_t, double*,
                                       int64_t);

// OpenBLAS writes it into a buffer of its own at every call: ranks that are threads would see it
// half written.
const char* gemm_library() {
  static const std::string text = openblas_get_config();
  return text.c_str();
}

}  // namespace sluice
