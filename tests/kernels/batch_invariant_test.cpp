// tests/kernels/batch_invariant_test.cpp -- Mode::batch_invariant: a row's bits are its own.
#include <gtest/gtest.h>

#include "kernels/gemm/gemm.h"
#include "kernels/linear/linear.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

struct Product {
  Product(DType dtype, int64_t N, int64_t D, int64_t F)
      : x(dtype, {N, D + 3}), w(dtype, {F, D + 1}), y(dtype, {N, F + 2}) {
    test::fill_normal(x.view(), 1);
    test::fill_normal(w.view(), 2);
    test::fill(y.view(), std::nan(""));
  }
  LinearForward args(int64_t n0, int64_t N) const {
    const int64_t D = x.view().dim(1) - 3, F = y.view().dim(1) - 2;
    return {.x = x.view().columns(1, D).rows(n0, N),
            .w = w.view().columns(1, D),
            .y = y.view().columns(1, F).rows(n0, N)};
  }
  Buffer x, w, y;
};

// Inner sizes around a vector (16 f32, 8 f64), outputs around a tile (16, 8, 4) and beside it.
TEST(BatchInvariant, LinearIsNearTheReference) {
  for (const int64_t N : {0, 1, 2, 3, 7, 70})
    for (const int64_t D : {1, 15, 16, 17, 160})
      for (const int64_t F : {1, 5, 16, 33, 130}) {
        const Product got(DType::f32, N, D, F), want(DType::f64, N, D, F);
        test::copy_elements(got.x.view(), want.x.view());
        test::copy_elements(got.w.view(), want.w.view());
        linear_forward(test::SmallContext(Mode::batch_invariant), got.args(0, N));
        linear_forward(test::SmallContext(Mode::reference), want.args(0, N));
        // A sum of D products in 16 lanes: an ulp of the largest partial sum every few steps.
        const auto e = test::compare(got.args(0, N).y, want.args(0, N).y, 16);
        EXPECT_LE(e.worst, 1) << N << " " << D << " " << F << ": " << e;
        for (int64_t n = 0; n < N; ++n) {  // nothing is written beside the columns
          EXPECT_TRUE(std::isnan(got.y.view().row<float>(n)[0]));
          EXPECT_TRUE(std::isnan(got.y.view().row<float>(n)[F + 1]));
        }
      }
}

TEST(BatchInvariant, ARowsBitsDoNotDependOnTheOthers) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const int64_t N = 70, D = 83, F = 131;
    const Product all(dtype, N, D, F);
    linear_forward(test::SmallContext(Mode::batch_invariant, 3), all.args(0, N));
    for (const int64_t rows : {1, 2, 3, 4, 5, 16, 33})
      for (const int64_t first : {0, 1, 6, 37}) {
        const Product some(dtype, N, D, F);
        linear_forward(test::SmallContext(Mode::batch_invariant, 1), some.args(first, rows));
        test::expect_same_bits(some.args(first, rows).y, all.args(first, rows).y,
                               cat(rows, " rows from ", first));
      }
  }
}

}  // namespace
}  // namespace sluice
