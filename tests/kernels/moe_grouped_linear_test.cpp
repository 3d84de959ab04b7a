// tests/kernels/moe_grouped_linear_test.cpp -- one linear layer an expert: closed forms, gradients,
// experts without rows, contract.
#include <gtest/gtest.h>

#include "kernels/linear/linear.h"
#include "kernels/moe/grouped_linear/grouped_linear.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

// Of five experts the first and the fourth have no row, the second most.
Buffer offsets_of(int64_t R) {
  Buffer b(DType::i32, {6});
  const int64_t at[] = {0, 0, R - R / 3, R - R / 5, R - R / 5, R};
  for (int e = 0; e < 6; ++e) b.view().as<int32_t>()[e] = int32_t(at[e]);
  return b;
}

test::MakeProblem grouped(int64_t D, int64_t F) {
  return [=](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("x", {D});
    p.row_input("dy", {F});
    p.input("w", {5, F, D});
    p.row_output("y", {F});
    p.row_output("dx", {D});
    p.output("dw", {5, F, D});
    const auto offsets = std::make_shared<Buffer>(offsets_of(setup.N));
    p.forward = [=](const Context& ctx, const test::OpProblem& t) {
      grouped_linear_forward(ctx,
                             {.x = t["x"], .w = t["w"], .offsets = offsets->view(), .y = t["y"]});
    };
    p.backward = [=](const Context& ctx, const test::OpProblem& t) {
      grouped_linear_backward(ctx, {.x = t["x"],
                                    .w = t["w"],
                                    .offsets = offsets->view(),
                                    .dy = t["dy"],
                                    .dx = t.grad("dx"),
                                    .dw = t.grad("dw")});
    };
    return p;
  };
}

class GroupedLinear : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, GroupedLinear, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// Each expert's rows are the linear op with its weight: bit for bit on the cpu, whose tiles are the
// same (the sizes pass their edges, 256 rows and 128 outputs). In the plain loops a compiler may
// round a product and a sum at once in one op and not in the other.
TEST_P(GroupedLinear, IsOneLinearAnExpert) {
  const int64_t R = 700, D = 19, F = 131;
  const test::SmallContext ctx(GetParam());
  const test::OpProblem p = grouped(D, F)({.N = R, .layout = test::Layout::strided});
  p.run(ctx);
  const Buffer offsets = offsets_of(R);
  for (int64_t e = 0; e < 5; ++e) {
    const int64_t begin = offsets.view().as<int32_t>()[e];
    const int64_t rows = offsets.view().as<int32_t>()[e + 1] - begin;
    const Tensor x = p["x"].rows(begin, rows), dy = p["dy"].rows(begin, rows);
    const Tensor w = p["w"].rows(e, 1).reshape({F, D});
    const Buffer y(DType::f32, {rows, F}), dx(DType::f32, {rows, D}), dw(DType::f32, {F, D});
    linear_forward(ctx, {.x = x, .w = w, .y = y.view()});
    linear_backward(ctx, {.x = x, .w = w, .dy = dy, .dx = {dx.view()}, .dw = {dw.view()}});
    const auto expect_equal = [&](const Tensor& got, const Tensor& want, const char* what) {
      if (GetParam() == Mode::run) test::expect_same_bits(got, want, cat(what, " of ", e));
      EXPECT_LE(test::compare(got, want, 64).worst, 1) << what << " of " << e;
    };
    expect_equal(p["y"].rows(begin, rows), y.view(), "y");
    expect_equal(p["dx"].rows(begin, rows), dx.view(), "dx");
    expect_equal(p["dw"].rows(e, 1).reshape({F, D}), dw.view(), "dw");
  }
}

// Small integers: every sum is exact. y = x w^T with w[e,f,d] = (e + 1) f + d.
TEST_P(GroupedLinear, ExactInIntegers) {
  const int64_t R = 11, D = 3, F = 4;
  const test::OpProblem p = grouped(D, F)({.N = R});
  for (int64_t i = 0; i < p["x"].numel(); ++i) test::set_element(p["x"], i, double(i % 5));
  for (int64_t e = 0; e < 5; ++e)
    for (int64_t f = 0; f < F; ++f)
      for (int64_t d = 0; d < D; ++d)
        test::set_element(p["w"], (e * F + f) * D + d, double((e + 1) * f + d));
  p.run(test::SmallContext(GetParam()));
  const Buffer offsets = offsets_of(R);
  for (int64_t e = 0; e < 5; ++e)
    for (int64_t r = offsets.view().as<int32_t>()[e]; r < offsets.view().as<int32_t>()[e + 1]; ++r)
      for (int64_t f = 0; f < F; ++f) {
        double want = 0;
        for (int64_t d = 0; d < D; ++d) want += double((r * D + d) % 5) * double((e + 1) * f + d);
        EXPECT_EQ(test::element(p["y"], r * F + f), want) << e << " " << r << " " << f;
      }
}

TEST_P(GroupedLinear, Gradients) {
  for (const auto& [D, F] : {std::pair<int64_t, int64_t>{1, 1}, {5, 130}, {33, 7}})
    for (int64_t R : {1, 4, 300}) test::expect_gradients(grouped(D, F), GetParam(), R);
}

// An expert without rows: zero where the gradient is written, untouched where it is added to.
TEST_P(GroupedLinear, IdleExperts) {
  for (const bool add : {false, true}) {
    test::OpProblem p = grouped(6, 9)({.N = 30});
    if (add) p.gradients_add();
    test::fill(p["dw"], 7);
    test::fill(p["dx"], 7);
    p.run(test::SmallContext(GetParam()));
    for (int64_t e = 0; e < 5; ++e) {
      const Tensor dw = p["dw"].rows(e, 1);
      for (int64_t i = 0; i < dw.numel(); ++i) {
        if (e == 0 || e == 3)
          EXPECT_EQ(test::element(dw, i), add ? 7 : 0) << e;
        else
          EXPECT_NE(test::element(dw, i), add ? 7 : 0) << e;
      }
    }
  }
}

// In Mode::batch_invariant a row's bits are those that it has as its expert's only row.
TEST(GroupedLinearCpu, BatchInvariant) {
  const int64_t R = 600, D = 67, F = 131;
  const test::SmallContext ctx(Mode::batch_invariant);
  const test::OpProblem p = grouped(D, F)({.N = R});
  p.forward(ctx, p);
  const Buffer all = offsets_of(R), one(DType::i32, {6}), y(DType::f32, {1, F});
  for (int64_t e = 0; e < 5; ++e)
    for (int64_t r = all.view().as<int32_t>()[e]; r < all.view().as<int32_t>()[e + 1]; ++r) {
      for (int64_t i = 0; i < 6; ++i) one.view().as<int32_t>()[i] = i > e;
      grouped_linear_forward(
          ctx, {.x = p["x"].rows(r, 1), .w = p["w"], .offsets = one.view(), .y = y.view()});
      test::expect_same_bits(y.view(), p["y"].rows(r, 1), cat("row ", r));
    }
  const test::OpProblem want = grouped(D, F)({.dtype = DType::f64, .N = R});
  test::copy_inputs(p, want);
  want.forward(test::SmallContext(Mode::reference), want);
  const test::ErrorStats error = test::compare(p["y"], want["y"], 32);
  EXPECT_LE(error.worst, 1) << error;
}

TEST(GroupedLinearCpu, AgreesWithReferenceInF64) {
  // As for kernels/linear: sqrt(K) / 3 ulps in the mean, five times that at worst, K <= 400.
  for (int64_t R : {1, 3, 65, 600})
    for (const auto& [D, F] : {std::pair<int64_t, int64_t>{1, 1}, {5, 130}, {192, 7}})
      test::expect_f32_near_reference(grouped(D, F), R, {{"y", 32}, {"dx", 32}, {"dw", 64}});
}

TEST(GroupedLinearCpu, KeepsTheOpPromises) {
  test::expect_op_promises(grouped(5, 7));
  test::expect_op_promises(grouped(33, 140));
}

TEST(GroupedLinearContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = grouped(8, 4)({.N = 10}),
                        q = grouped(6, 2)({.dtype = DType::f64, .N = 3});
  const Buffer offsets = offsets_of(10), short_offsets(DType::i32, {3});
  const auto forward = [&](auto change) {
    GroupedLinearForward a{.x = p["x"], .w = p["w"], .offsets = offsets.view(), .y = p["y"]};
    change(a);
    return test::error_of([&] { grouped_linear_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    GroupedLinearBackward a{.x = p["x"],
                            .w = p["w"],
                            .offsets = offsets.view(),
                            .dy = p["dy"],
                            .dx = {p["dx"]},
                            .dw = {p["dw"]}};
    change(a);
    return test::error_of([&] { grouped_linear_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.w = q["w"]; }),
                    "w is f64 [5, 2, 6] on cpu, expected f32 [5, 2, 8]");
  test::expect_part(forward([&](auto& a) { a.offsets = short_offsets.view(); }),
                    "offsets is i32 [3] on cpu, expected i32 [6]");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "dy is f64 [3, 2]");
  test::expect_part(backward([&](auto& a) { a.dw.t = {}; }), "dw is missing");
  offsets.view().as<int32_t>()[2] = 9;
  test::expect_part(forward([&](auto&) {}), "offsets: falls from 9 to 8 at document 2");
  offsets.view().as<int32_t>()[2] = 7;
  offsets.view().as<int32_t>()[5] = 9;
  test::expect_part(backward([&](auto&) {}), "offsets: ends at 9, expected 10 rows");
}

}  // namespace
}  // namespace sluice
