// tests/kernels/moe_dispatch_test.cpp -- the sort, and rows there and back: closed forms,
// gradients, rounding, contract.
#include <gtest/gtest.h>

#include "kernels/moe/dispatch/dispatch.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

// Choices with unequal loads: expert 0 gets most, the last one none. Those of a token differ.
Buffer experts(int64_t N, int64_t k, int64_t E) {
  Buffer b(DType::i32, {N, k});
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < k; ++j) {
      const int64_t first = random_u64(5, uint64_t(n)) % 3 == 0
                                ? int64_t(random_u64(6, uint64_t(n)) % uint64_t(E - 1))
                                : 0;
      b.view().as<int32_t>()[n * k + j] = int32_t((first + j) % (E - 1));
    }
  return b;
}

struct Plan {
  Buffer experts, place, offsets, counts;
};
Plan plan(const Context& ctx, Buffer choice, int64_t E) {
  const int64_t N = choice.view().dim(0), k = choice.view().dim(1);
  Plan p{std::move(choice), Buffer(DType::i32, {N, k}), Buffer(DType::i32, {E + 1}),
         Buffer(DType::i64, {E})};
  dispatch_plan(ctx, {.experts = p.experts.view(),
                      .place = p.place.view(),
                      .offsets = p.offsets.view(),
                      .counts = p.counts.view()});
  return p;
}

std::shared_ptr<Plan> some_plan(int64_t N, int64_t k) {
  return std::make_shared<Plan>(plan({.mode = Mode::reference}, experts(N, k, k + 2), k + 2));
}

test::MakeProblem dispatch(int64_t D, int64_t k) {
  return [=](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.row_input("x", {D});
    p.input("dxs", {setup.N * k, D});
    p.output("xs", {setup.N * k, D});
    p.row_output("dx", {D});
    const auto made = some_plan(setup.N, k);
    p.forward = [=](const Context& ctx, const test::OpProblem& t) {
      dispatch_forward(ctx, {.x = t["x"], .place = made->place.view(), .xs = t["xs"]});
    };
    p.backward = [=](const Context& ctx, const test::OpProblem& t) {
      dispatch_backward(ctx, {.dxs = t["dxs"], .place = made->place.view(), .dx = t.grad("dx")});
    };
    return p;
  };
}

test::MakeProblem combine(int64_t D, int64_t k) {
  return [=](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.input("ys", {setup.N * k, D});
    p.row_input("weights", {k});
    p.row_input("dy", {D});
    p.row_output("y", {D});
    p.output("dys", {setup.N * k, D});
    p.row_output("dweights", {k});
    const auto made = some_plan(setup.N, k);
    p.forward = [=](const Context& ctx, const test::OpProblem& t) {
      combine_forward(
          ctx, {.ys = t["ys"], .weights = t["weights"], .place = made->place.view(), .y = t["y"]});
    };
    p.backward = [=](const Context& ctx, const test::OpProblem& t) {
      combine_backward(ctx, {.ys = t["ys"],
                             .weights = t["weights"],
                             .place = made->place.view(),
                             .dy = t["dy"],
                             .dys = t.grad("dys"),
                             .dweights = t.grad("dweights")});
    };
    return p;
  };
}

class Dispatch : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Dispatch, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

std::vector<int64_t> values(const Tensor& t) {
  std::vector<int64_t> v;
  for (int64_t i = 0; i < t.numel(); ++i)
    v.push_back(t.dtype == DType::i64 ? t.as<int64_t>()[i] : t.as<int32_t>()[i]);
  return v;
}

TEST_P(Dispatch, SortWorkedOut) {
  Buffer choice(DType::i32, {4, 2});  // of experts 0 .. 3; nobody takes 1
  const int32_t of[] = {2, 0, 3, 2, 0, 2, 2, 3};
  std::copy(std::begin(of), std::end(of), choice.view().as<int32_t>());
  const Plan p = plan(test::SmallContext(GetParam()), std::move(choice), 4);
  EXPECT_EQ(values(p.offsets.view()), (std::vector<int64_t>{0, 2, 2, 6, 8}));
  EXPECT_EQ(values(p.place.view()), (std::vector<int64_t>{2, 0, 6, 3, 1, 4, 5, 7}));
  EXPECT_EQ(values(p.counts.view()), (std::vector<int64_t>{2, 0, 4, 2}));
}

// A permutation that puts every slot into its expert's range, in the order of slots; counts add up.
TEST_P(Dispatch, SortIsStableAndCountsAddUp) {
  for (int64_t N : {0, 1, 2, 300})
    for (int64_t k : {1, 2, 5}) {
      const int64_t E = k + 3;
      const test::SmallContext ctx(GetParam());
      const Plan p = plan(ctx, experts(N, k, E), E);
      const auto place = values(p.place.view()), offsets = values(p.offsets.view());
      const auto expert = values(p.experts.view());
      std::vector<int64_t> slot(size_t(N * k), -1);
      for (size_t i = 0; i < place.size(); ++i) slot.at(size_t(place[i])) = int64_t(i);
      for (size_t r = 0; r < slot.size(); ++r) {
        ASSERT_GE(slot[r], 0);
        const int64_t e = expert[size_t(slot[r])];
        EXPECT_TRUE(offsets[size_t(e)] <= int64_t(r) && int64_t(r) < offsets[size_t(e) + 1]);
        if (r > 0 && expert[size_t(slot[r - 1])] == e) {
          EXPECT_LT(slot[r - 1], slot[r]);
        }
      }
      EXPECT_EQ(offsets.front(), 0);
      EXPECT_EQ(offsets.back(), N * k);
      dispatch_plan(ctx, {.experts = p.experts.view(),
                          .place = p.place.view(),
                          .offsets = p.offsets.view(),
                          .counts = p.counts.view()});
      for (int64_t e = 0; e < E; ++e)
        EXPECT_EQ(p.counts.view().as<int64_t>()[e],
                  2 * (offsets[size_t(e) + 1] - offsets[size_t(e)]));
    }
}

// x = 1, 2 to rows 1, 2 and 0, 3; back with weights 10 and 100.
TEST_P(Dispatch, RowsWorkedOut) {
  const test::SmallContext ctx(GetParam());
  Buffer place(DType::i32, {2, 2}), x(DType::f64, {2, 1}), w(DType::f64, {2, 2});
  const int32_t at[] = {1, 2, 0, 3};
  std::copy(std::begin(at), std::end(at), place.view().as<int32_t>());
  for (int i = 0; i < 4; ++i) test::set_element(w.view(), i, i % 2 ? 100 : 10);
  for (int i = 0; i < 2; ++i) test::set_element(x.view(), i, i + 1);
  const Buffer xs(DType::f64, {4, 1}), y(DType::f64, {2, 1}), dys(DType::f64, {4, 1});
  const Buffer dw(DType::f64, {2, 2});
  dispatch_forward(ctx, {.x = x.view(), .place = place.view(), .xs = xs.view()});
  for (int r = 0; r < 4; ++r) EXPECT_EQ(test::element(xs.view(), r), r % 3 == 0 ? 2 : 1) << r;
  for (int r = 0; r < 4; ++r) test::set_element(xs.view(), r, r + 1);  // as if experts had done it
  combine_forward(ctx,
                  {.ys = xs.view(), .weights = w.view(), .place = place.view(), .y = y.view()});
  EXPECT_EQ(test::element(y.view(), 0), 10 * 2 + 100 * 3);
  EXPECT_EQ(test::element(y.view(), 1), 10 * 1 + 100 * 4);
  combine_backward(ctx, {.ys = xs.view(),
                         .weights = w.view(),
                         .place = place.view(),
                         .dy = x.view(),
                         .dys = {dys.view()},
                         .dweights = {dw.view()}});
  const double want_dys[] = {20, 10, 100, 200}, want_dw[] = {2, 3, 2, 8};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(test::element(dys.view(), i), want_dys[i]) << i;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(test::element(dw.view(), i), want_dw[i]) << i;
  dispatch_backward(ctx, {.dxs = dys.view(), .place = place.view(), .dx = {y.view()}});
  EXPECT_EQ(test::element(y.view(), 0), 10 + 100);
  EXPECT_EQ(test::element(y.view(), 1), 20 + 200);
}

TEST_P(Dispatch, Gradients) {
  for (const auto& [D, k] : {std::pair<int64_t, int64_t>{1, 1}, {5, 2}, {33, 3}})
    for (int64_t N : {1, 3, 70}) {
      test::expect_gradients(dispatch(D, k), GetParam(), N);
      test::expect_gradients(combine(D, k), GetParam(), N);
    }
}

TEST(DispatchCpu, AgreesWithReferenceInF64) {
  // Sums of k terms; dweights of D products: sqrt(D) / 3 ulps of their rms in the mean.
  for (const auto& [D, k] : {std::pair<int64_t, int64_t>{1, 1}, {16, 2}, {67, 3}, {192, 8}})
    for (int64_t N : {1, 3, 200}) {
      test::expect_f32_near_reference(dispatch(D, k), N, {{"xs", 0.5}, {"dx", 8}});
      test::expect_f32_near_reference(combine(D, k), N, {{"y", 16}, {"dys", 1}, {"dweights", 32}});
    }
}

TEST(DispatchCpu, KeepsTheOpPromises) {
  for (const auto& [D, k] : {std::pair<int64_t, int64_t>{1, 1}, {20, 3}}) {
    test::expect_op_promises(dispatch(D, k));
    test::expect_op_promises(combine(D, k));
  }
}

TEST(DispatchContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const Buffer x(DType::f32, {3, 4}), xs(DType::f32, {6, 4}), w(DType::f32, {3, 2});
  const Plan p = plan(ctx, experts(3, 2, 4), 4);
  const auto sort = [&](auto change) {
    DispatchPlan a{.experts = p.experts.view(),
                   .place = p.place.view(),
                   .offsets = p.offsets.view(),
                   .counts = p.counts.view()};
    change(a);
    return test::error_of([&] { dispatch_plan(ctx, a); });
  };
  test::expect_part(sort([&](auto&) {}), "no error");
  test::expect_part(sort([&](auto& a) { a.place = p.offsets.view(); }), "place is i32 [5]");
  test::expect_part(sort([&](auto& a) { a.counts = p.offsets.view(); }), "counts is i32 [5]");
  test::expect_part(sort([&](auto& a) { a.experts = w.view(); }), "experts: is f32 [3, 2]");
  p.experts.view().as<int32_t>()[4] = -1;
  test::expect_part(sort([&](auto&) {}), "experts: of token 2 is -1, there are 4");

  const Tensor place = p.place.view();
  const auto message = [&](const Tensor& tokens, const Tensor& routed) {
    return test::error_of(
        [&] { dispatch_forward(ctx, {.x = tokens, .place = place, .xs = routed}); });
  };
  test::expect_part(message(x.view(), xs.view()), "no error");
  test::expect_part(message(x.view(), x.view()), "xs is f32 [3, 4] on cpu, expected f32 [6, 4]");
  test::expect_part(message(xs.view(), xs.view()), "place is i32 [3, 2]");
  const auto back = [&](const Tensor& dx) {
    return test::error_of(
        [&] { dispatch_backward(ctx, {.dxs = xs.view(), .place = place, .dx = {dx}}); });
  };
  test::expect_part(back(x.view()), "no error");
  test::expect_part(back(w.view()), "dxs is f32 [6, 4] on cpu, expected f32 [6, 2]");
  const auto combined = [&](auto change) {
    CombineForward a{.ys = xs.view(), .weights = w.view(), .place = place, .y = x.view()};
    change(a);
    return test::error_of([&] { combine_forward(ctx, a); });
  };
  test::expect_part(combined([&](auto&) {}), "no error");
  test::expect_part(combined([&](auto& a) { a.weights = x.view(); }), "weights is f32 [3, 4]");
  const auto combined_back = [&](auto change) {
    CombineBackward a{.ys = xs.view(),
                      .weights = w.view(),
                      .place = place,
                      .dy = x.view(),
                      .dys = {xs.view()},
                      .dweights = {w.view()}};
    change(a);
    return test::error_of([&] { combine_backward(ctx, a); });
  };
  test::expect_part(combined_back([&](auto&) {}), "no error");
  test::expect_part(combined_back([&](auto& a) { a.dys.t = x.view(); }), "dys is f32 [3, 4]");
  test::expect_part(combined_back([&](auto& a) { a.dweights.t = {}; }), "dweights is missing");
}

}  // namespace
}  // namespace sluice
