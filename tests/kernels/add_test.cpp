// tests/kernels/add_test.cpp -- exact sums, gradients, shapes of any rank, contract of add.
#include "kernels/add/add.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

// The op takes dense tensors only: the layout of the setup is left out.
test::MakeProblem add(int64_t C) {
  return [C](const test::Setup& setup) {
    test::OpProblem p({.dtype = setup.dtype, .N = setup.N});
    for (const char* name : {"a", "b", "dy"}) p.row_input(name, {C});
    for (const char* name : {"y", "da", "db"}) p.row_output(name, {C});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      add_forward(ctx, {.a = t["a"], .b = t["b"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      add_backward(ctx, {.dy = t["dy"], .da = t.grad("da"), .db = t.grad("db")});
    };
    return p;
  };
}

class Add : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Add, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// One rounding: the sum of two floats is compared without tolerance. 40000 elements: three blocks.
TEST_P(Add, Exact) {
  const test::OpProblem p = add(40)({.N = 1000});
  p.run(test::SmallContext(GetParam()));
  for (int64_t i = 0; i < p["y"].numel(); ++i)
    ASSERT_EQ(p["y"].as<float>()[i], p["a"].as<float>()[i] + p["b"].as<float>()[i]);
  test::expect_same_bits(p["da"], p["dy"], "da");
  test::expect_same_bits(p["db"], p["dy"], "db");
}

TEST_P(Add, Gradients) {
  for (int64_t N : {1, 3, 700}) test::expect_gradients(add(33), GetParam(), N);
}

TEST_P(Add, RowsAreIndependent) {
  test::expect_rows_independent(add(33), GetParam(), 700);
}

// y = a + a: both gradients go to one place, the second is added to the first.
TEST_P(Add, OneValueTwice) {
  const test::SmallContext ctx(GetParam());
  const test::OpProblem p = add(33)({.N = 700});
  add_backward(ctx, {.dy = p["dy"], .da = {p["da"]}, .db = {p["da"], true}});
  for (int64_t i = 0; i < p["dy"].numel(); ++i)
    ASSERT_EQ(test::element(p["da"], i), 2 * test::element(p["dy"], i));
}

TEST_P(Add, AnyRank) {
  const test::SmallContext ctx(GetParam());
  const Buffer a(DType::f64, {2, 3, 1, 5}), b(a.view()), y(a.view());
  test::fill_normal(a.view(), 1);
  test::fill_normal(b.view(), 2);
  add_forward(ctx, {.a = a.view(), .b = b.view(), .y = y.view()});
  for (int64_t i = 0; i < 30; ++i)
    EXPECT_EQ(y.view().as<double>()[i], a.view().as<double>()[i] + b.view().as<double>()[i]);
}

TEST(AddCpu, AgreesWithReferenceInF64) {
  // One rounding to nearest: half an ulp; the gradients are copies.
  for (int64_t N : {1, 3, 700})
    test::expect_f32_near_reference(add(33), N, {{"y", 0.5}, {"da", 0.5}, {"db", 0.5}});
}

TEST(AddCpu, KeepsTheOpPromises) {
  for (int64_t C : {1, 67}) test::expect_op_promises(add(C));
}

TEST(AddContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = add(8)({.N = 3}), q = add(6)({.dtype = DType::f64, .N = 3});
  const auto forward = [&](auto change) {
    AddForward a{.a = p["a"], .b = p["b"], .y = p["y"]};
    change(a);
    return test::error_of([&] { add_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    AddBackward a{.dy = p["dy"], .da = {p["da"]}, .db = {p["db"]}};
    change(a);
    return test::error_of([&] { add_backward(ctx, a); });
  };
  const Buffer wide(DType::f32, {3, 9});
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.a = {}; }), "a is missing");
  test::expect_part(forward([&](auto& a) { a.b = q["b"]; }),
                    "b is f64 [3, 6] on cpu, expected dense f32 [3, 8] on cpu");
  test::expect_part(forward([&](auto& a) { a.b = wide.view().columns(0, 8); }), "expected dense");
  test::expect_part(forward([&](auto& a) { a.y = q["y"]; }), "y is f64 [3, 6]");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = {}; }), "dy is missing");
  test::expect_part(backward([&](auto& a) { a.da.t = q["da"]; }), "da is f64 [3, 6]");
  test::expect_part(backward([&](auto& a) { a.db.t = {}; }), "db is missing");
}

}  // namespace
}  // namespace sluice
