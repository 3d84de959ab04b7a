// tests/kernels/gemm_test.cpp -- against three plain loops.
#include "kernels/gemm/gemm.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/tensor/rng.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// rows x cols with row stride ld; NaN in the gaps, which nobody may read.
template <class T>
std::vector<T> matrix(uint64_t seed, int64_t rows, int64_t cols, int64_t ld) {
  std::vector<T> m(size_t(rows * ld), T(kNan));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      m[size_t(r * ld + c)] = T(random_normal(seed, uint64_t(r * cols + c)));
  return m;
}

struct Case {
  Transpose ta, tb;
  int64_t M, N, K, gap;
  double alpha, beta;
};

template <class T>
void expect_product(const Case& k) {
  SCOPED_TRACE(cat(k.ta == Transpose::yes ? "a^T " : "a ", k.tb == Transpose::yes ? "b^T " : "b ",
                   k.M, " x ", k.N, " x ", k.K, ", gap ", k.gap, ", ", k.alpha, ", ", k.beta));
  const bool ta = k.ta == Transpose::yes, tb = k.tb == Transpose::yes;
  const int64_t lda = (ta ? k.M : k.K) + k.gap, ldb = (tb ? k.K : k.N) + k.gap, ldc = k.N + k.gap;
  const auto a = matrix<T>(1, ta ? k.K : k.M, ta ? k.M : k.K, lda);
  const auto b = matrix<T>(2, tb ? k.N : k.K, tb ? k.K : k.N, ldb);
  auto c = matrix<T>(3, k.M, k.N, ldc);
  const auto before = c;
  if (k.beta == 0) c.assign(c.size(), T(kNan));
  gemm(k.ta, k.tb, k.M, k.N, k.K, T(k.alpha), a.data(), lda, b.data(), ldb, T(k.beta), c.data(),
       ldc);
  for (int64_t m = 0; m < k.M; ++m) {
    for (int64_t n = 0; n < k.N; ++n) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < k.K; ++i) {
        const double p = double(a[size_t(ta ? i * lda + m : m * lda + i)]) *
                         double(b[size_t(tb ? n * ldb + i : i * ldb + n)]);
        sum += p, size += std::abs(p);
      }
      const double old = double(before[size_t(m * ldc + n)]);
      const double want = k.alpha * sum + (k.beta == 0 ? 0 : k.beta * old);
      // K + 3 roundings of partial sums, none larger than the sum of magnitudes.
      const double bound = double(std::numeric_limits<T>::epsilon()) * double(k.K + 3) *
                           (std::abs(k.alpha) * size + std::abs(k.beta * old));
      ASSERT_NEAR(double(c[size_t(m * ldc + n)]), want, bound + 1e-300) << m << " " << n;
    }
    for (int64_t n = k.N; n < ldc; ++n) ASSERT_TRUE(std::isnan(c[size_t(m * ldc + n)]));
  }
}

TEST(Gemm, IsThreeLoops) {
  for (const Transpose ta : {Transpose::no, Transpose::yes})
    for (const Transpose tb : {Transpose::no, Transpose::yes})
      for (const int64_t gap : {0, 5}) {
        for (const auto& [M, N, K] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                         {3, 4, 5},
                                                                         {17, 1, 33},
                                                                         {1, 19, 7},
                                                                         {64, 48, 16},
                                                                         {0, 3, 4},
                                                                         {3, 0, 4},
                                                                         {3, 4, 0}})
          for (const auto& [alpha, beta] :
               std::vector<std::array<double, 2>>{{1, 0}, {1, 1}, {-0.5, 2}, {0, 0}}) {
            expect_product<float>({ta, tb, M, N, K, gap, alpha, beta});
            expect_product<double>({ta, tb, M, N, K, gap, alpha, beta});
          }
      }
}

TEST(Gemm, RefusesWhatTheLibraryCannotIndex) {
  const int64_t huge = int64_t(1) << 40;
  const float a = 1, b = 1;
  float c = 1;
  expect_contains(error_of([&] {
                    gemm<float>(Transpose::no, Transpose::no, 1, 1, 1, 1, &a, huge, &b, 1, 0, &c,
                                1);
                  }),
                  {"1 x 1 x 1", "index type"});
}

// (I + L) x = b, checked by the product; NaN on and above the diagonal is not read.
template <class T>
void expect_solution(Transpose t, int64_t M, int64_t N, int64_t gap) {
  const int64_t ldl = M + gap, ldb = N + gap;
  auto L = matrix<T>(4, M, M, ldl);
  for (int64_t r = 0; r < M; ++r)
    for (int64_t c = 0; c < M; ++c) L[size_t(r * ldl + c)] *= c < r ? T(0.3) : T(kNan);
  const auto b = matrix<T>(5, M, N, ldb);
  auto x = b;
  solve_unit_lower(t, M, N, L.data(), ldl, x.data(), ldb);
  for (int64_t m = 0; m < M; ++m)
    for (int64_t n = 0; n < N; ++n) {
      double sum = double(x[size_t(m * ldb + n)]), size = std::abs(sum);
      for (int64_t i = 0; i < M; ++i) {
        if (t == Transpose::no ? i >= m : i <= m) continue;
        const double p = double(L[size_t(t == Transpose::no ? m * ldl + i : i * ldl + m)]) *
                         double(x[size_t(i * ldb + n)]);
        sum += p, size += std::abs(p);
      }
      // Substitution is backward stable: the residual is a few roundings a term.
      ASSERT_NEAR(sum, double(b[size_t(m * ldb + n)]),
                  double(std::numeric_limits<T>::epsilon()) * double(M + 3) * size)
          << m << " " << n;
    }
}

TEST(Gemm, SolvesUnitLowerTriangles) {
  for (const Transpose t : {Transpose::no, Transpose::yes})
    for (const int64_t gap : {0, 3})
      for (const auto& [M, N] :
           std::vector<std::array<int64_t, 2>>{{1, 4}, {16, 5}, {33, 7}, {0, 2}, {2, 0}}) {
        SCOPED_TRACE(cat(M, " x ", N, " gap ", gap));
        expect_solution<float>(t, M, N, gap);
        expect_solution<double>(t, M, N, gap);
      }
}

TEST(Gemm, SaysWhichLibraryItIs) {
  expect_contains(gemm_library(), {"OpenBLAS"});
}

}  // namespace
}  // namespace sluice::test
