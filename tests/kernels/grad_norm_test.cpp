// tests/kernels/grad_norm_test.cpp -- sums of squares of many tensors, and what becomes of them.
#include "kernels/grad_norm/grad_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using test::CpuContext;
using test::set_element;

double sum_of_squares(const Context& ctx, const std::vector<Tensor>& grads) {
  double sum = NAN;
  grad_norm(ctx,
            {.grads = grads, .sum_of_squares = make_tensor(&sum, DType::f64, Device::cpu, {1})});
  return sum;
}

class GradNormOp : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, GradNormOp, testing::Values(Mode::run, Mode::reference),
                         [](const auto& info) {
                           return info.param == Mode::run ? "cpu" : "reference";
                         });

// g[i] = i over tensors of odd sizes: sum of i^2 = n (n + 1) (2 n + 1) / 6, exact in f64.
TEST_P(GradNormOp, SumsSquaresOfAllTensors) {
  CpuContext ctx(GetParam());
  const std::vector<int64_t> sizes = {3, 0, 1, 40000, 17, (1 << 14), (1 << 14) + 1};
  for (const DType t : {DType::f32, DType::f64}) {
    std::vector<Buffer> buffers;
    std::vector<Tensor> grads;
    double want = 0;
    for (const int64_t size : sizes) {
      const Buffer& b = buffers.emplace_back(t, std::initializer_list<int64_t>{size});
      for (int64_t i = 0; i < size; ++i) set_element(b.view(), i, double(i));
      grads.push_back(b.view());
      const double n = double(size - 1);
      want += size ? n * (n + 1) * (2 * n + 1) / 6 : 0;
    }
    EXPECT_EQ(sum_of_squares(ctx, grads), want);
  }
}

TEST_P(GradNormOp, NothingSumsToZero) {
  CpuContext ctx(GetParam());
  EXPECT_EQ(sum_of_squares(ctx, {}), 0);
  const Buffer empty(DType::f32, {0});
  EXPECT_EQ(sum_of_squares(ctx, {empty.view()}), 0);
}

// Squares of f32 gradients overflow and underflow f32, but not f64.
TEST_P(GradNormOp, SquaresAreTakenInF64) {
  CpuContext ctx(GetParam());
  const Buffer g(DType::f32, {2});
  for (const float x : {3e30f, 3e-30f}) {
    test::fill(g.view(), x);
    const double want = 2 * double(x) * double(x);
    EXPECT_NEAR(sum_of_squares(ctx, {g.view()}), want, 1e-15 * want);
  }
}

TEST_P(GradNormOp, NonFiniteElementsShow) {
  CpuContext ctx(GetParam());
  const Buffer g(DType::f32, {20001}), other(DType::f32, {5});
  for (const int64_t at : {0, 16, 16384, 20000}) {
    test::fill(g.view(), 1);
    set_element(g.view(), at, NAN);
    EXPECT_TRUE(std::isnan(sum_of_squares(ctx, {other.view(), g.view()}))) << at;
    set_element(g.view(), at, -INFINITY);
    EXPECT_TRUE(std::isinf(sum_of_squares(ctx, {other.view(), g.view()}))) << at;
  }
}

TEST(GradNormCpu, MatchesTheReferenceAndThreadsChangeNoBit) {
  CpuContext one(Mode::run, 1), three(Mode::run, 3), reference(Mode::reference);
  const Buffer a(DType::f32, {100003}), b(DType::f64, {777});
  test::fill_normal(a.view(), 1, 0.1);
  test::fill_normal(b.view(), 2, 10);
  const double x = sum_of_squares(one, {a.view(), b.view()});
  EXPECT_EQ(x, sum_of_squares(three, {a.view(), b.view()}));
  // Sums of 1e5 positive terms in two orders: each is within sqrt(n) eps of the other.
  EXPECT_NEAR(x, sum_of_squares(reference, {a.view(), b.view()}), 316 * 1.2e-16 * x);
}

TEST(GradNormCpu, PlanKnowsThePeak) {
  const Buffer a(DType::f32, {100003}), b(DType::f32, {0}), out(DType::f64, {1});
  for (const std::vector<Tensor>& grads :
       {std::vector<Tensor>{a.view(), b.view()}, std::vector<Tensor>{}}) {
    CpuContext run;
    sum_of_squares(run, grads);
    Arena arena = Arena::plan(Device::cpu);
    const Context plan{.mode = Mode::plan, .arena = &arena};
    std::vector<Tensor> without_memory = grads;
    for (Tensor& t : without_memory) t.data = nullptr;
    grad_norm(plan, {.grads = without_memory,
                     .sum_of_squares = make_tensor(nullptr, DType::f64, Device::cpu, {1})});
    clip_factor(plan, {.sum_of_squares = out.view(), .max_norm = 1, .state = nullptr});
    EXPECT_EQ(arena.peak(), run.arena.peak());
    EXPECT_EQ(run.arena.used(), 0);
  }
}

StepState clipped(double sum, double max_norm) {
  const CpuContext ctx;
  StepState state{.step = 5, .lr = 0.5f, .grad_scale = -1, .grad_norm = -1, .skip = 7};
  clip_factor(ctx, {.sum_of_squares = make_tensor(&sum, DType::f64, Device::cpu, {1}),
                    .max_norm = max_norm,
                    .state = &state});
  EXPECT_EQ(state.step, 5);
  EXPECT_EQ(state.lr, 0.5f);
  return state;
}

TEST(ClipFactor, ScalesLongGradientsOnly) {
  const StepState longer = clipped(100, 2.5);
  EXPECT_EQ(longer.grad_norm, 10);
  EXPECT_FLOAT_EQ(longer.grad_scale, 0.25f);
  EXPECT_EQ(longer.skip, 0);
  for (const double max_norm : {10.0, 11.0, 1e300}) EXPECT_EQ(clipped(100, max_norm).grad_scale, 1);
  const StepState off = clipped(1e20, 0);  // max_norm 0: no clipping
  EXPECT_EQ(off.grad_scale, 1);
  EXPECT_EQ(off.grad_norm, 1e10f);
  const StepState zero = clipped(0, 1);
  EXPECT_EQ(zero.grad_scale, 1);
  EXPECT_EQ(zero.grad_norm, 0);
  EXPECT_EQ(zero.skip, 0);
}

TEST(ClipFactor, SkipsWhatIsNotFinite) {
  for (const double max_norm : {0.0, 1.0})
    for (const double sum : {double(NAN), double(INFINITY)})
      EXPECT_EQ(clipped(sum, max_norm).skip, 1) << sum << " " << max_norm;
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(GradNormContract, SaysWhatIsWrong) {
  CpuContext ctx;
  auto expect = [](const std::string& message, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
  };
  const Buffer matrix(DType::f32, {2, 3}), ints(DType::i32, {2}), one(DType::f64, {1});
  StepState state;
  expect(message_of([&] { sum_of_squares(ctx, {matrix.view()}); }), {"grad is f32 [2, 3]"});
  expect(message_of([&] { sum_of_squares(ctx, {ints.view()}); }), {"f32 or f64", "i32"});
  expect(message_of([&] { grad_norm(ctx, {.grads = {}, .sum_of_squares = ints.view()}); }),
         {"sum_of_squares is i32 [2]", "f64 [1]"});
  expect(message_of([&] {
           clip_factor(ctx, {.sum_of_squares = one.view(), .max_norm = -1, .state = &state});
         }),
         {"max_norm is -1"});
  expect(message_of([&] {
           clip_factor(ctx, {.sum_of_squares = one.view(), .max_norm = 1, .state = nullptr});
         }),
         {"no step state"});
}

}  // namespace
}  // namespace sluice
