// tests/kernels/moe_gpu_test.cpp -- choices of experts, and rows to them and back, on CUDA.
//
// Bounds: as in rows_gpu_test.cpp; an output in bf16 is rounded once, a sum in f32 of n terms is
// good to sqrt(n) / 3 ulps of its size.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "kernels/moe/dispatch/dispatch.h"
#include "kernels/moe/route/route.h"
#include "tests/kernels/moe_gpu_problem.h"

namespace sluice::test {
namespace {

constexpr double kRounded = .004, kSum = 1e-5;

// Different experts for the choices of a token, expert 0 oftenest and the last one never.
Buffer choices(int64_t N, int64_t k, int64_t E) {
  Buffer b(DType::i32, {N, k});
  const uint64_t others = uint64_t(std::max<int64_t>(1, E - 1));
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < k; ++j) {
      const uint64_t first =
          random_u64(5, uint64_t(n)) % 3 == 0 ? random_u64(6, uint64_t(n)) % others : 0;
      b.view().as<int32_t>()[n * k + j] = int32_t((first + uint64_t(j)) % others);
    }
  return b;
}

GpuCase route_case(int64_t E, int64_t k, RouteParams params) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("logits", {E}), p.row_input("dweights", {k}), p.input("bias", {E});
    p.row_output("scores", {E}), p.row_output("weights", {k}), p.row_output("dlogits", {E});
    const auto given = std::make_shared<Integers>(choices(setup.N, k, E + 1));
    const auto chosen = std::make_shared<Integers>(Buffer(DType::i32, {setup.N, k}));
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      route_forward(ctx, {.logits = t["logits"],
                          .bias = t["bias"],
                          .given = given->on(ctx.device),
                          .scores = t["scores"],
                          .experts = chosen->on(ctx.device),
                          .weights = t["weights"],
                          .params = params});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      route_backward(ctx, {.scores = t["scores"],
                           .experts = chosen->on(ctx.device),
                           .dweights = t["dweights"],
                           .dlogits = t.grad("dlogits"),
                           .params = params});
    };
    return p;
  };
  // dlogits has differences: dw - sum dw p.
  return {.make = make,
          .wide = {"logits", "dweights", "bias", "scores", "weights", "dlogits"},
          .bounds = {{"scores", 2e-6}, {"weights", 2e-6}, {"dlogits", kSum}}};
}

const std::vector<RouteParams> kLaws = {
    {.score = RouterScore::sigmoid, .renormalize = true, .scale = 2.446},
    {.score = RouterScore::sigmoid, .renormalize = false, .scale = 0.7},
    {.score = RouterScore::softmax, .renormalize = true, .scale = 1},
    {.score = RouterScore::softmax, .renormalize = false, .scale = 16},
};

std::shared_ptr<Integers> places(int64_t N, int64_t k) {
  const Buffer experts = choices(N, k, k + 2);
  Buffer place(DType::i32, {N, k});
  const Buffer offsets(DType::i32, {k + 3});
  dispatch_plan(
      {.mode = Mode::reference},
      {.experts = experts.view(), .place = place.view(), .offsets = offsets.view(), .counts = {}});
  return std::make_shared<Integers>(std::move(place));
}

GpuCase dispatch_case(int64_t D, int64_t k) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {D}), p.input("dxs", {setup.N * k, D});
    p.output("xs", {setup.N * k, D}), p.row_output("dx", {D});
    const auto place = places(setup.N, k);
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      dispatch_forward(ctx, {.x = t["x"], .place = place->on(ctx.device), .xs = t["xs"]});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      dispatch_backward(ctx, {.dxs = t["dxs"], .place = place->on(ctx.device), .dx = t.grad("dx")});
    };
    return p;
  };
  return {.make = make, .wide = {}, .bounds = {{"xs", 1e-12}, {"dx", kRounded}}};
}

GpuCase combine_case(int64_t D, int64_t k) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.input("ys", {setup.N * k, D}), p.row_input("weights", {k}), p.row_input("dy", {D});
    p.row_output("y", {D}), p.output("dys", {setup.N * k, D}), p.row_output("dweights", {k});
    const auto place = places(setup.N, k);
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      combine_forward(
          ctx,
          {.ys = t["ys"], .weights = t["weights"], .place = place->on(ctx.device), .y = t["y"]});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      combine_backward(ctx, {.ys = t["ys"],
                             .weights = t["weights"],
                             .place = place->on(ctx.device),
                             .dy = t["dy"],
                             .dys = t.grad("dys"),
                             .dweights = t.grad("dweights")});
    };
    return p;
  };
  return {.make = make,
          .wide = {"weights", "dweights"},
          .bounds = {{"y", kRounded}, {"dys", kRounded}, {"dweights", kSum}}};
}

using MoeGpu = GpuTest;

TEST_F(MoeGpu, RouteAgreesWithReferenceInF64) {
  for (const RouteParams& law : kLaws)
    for (const auto& [E, k] :
         {std::pair<int64_t, int64_t>{1, 1}, {5, 2}, {64, 6}, {200, 8}, {1000, 32}})
      for (int64_t N : {1, 33}) expect_gpu_near_reference(route_case(E, k, law), N);
  expect_gpu_op_promises(route_case(64, 8, kLaws[0]));
}

struct Routed {
  Buffer experts, weights, scores;
};
Routed run_route(const Buffer& logits, const Buffer& bias, int64_t k, const RouteParams& params) {
  const GpuContext& gpu = GpuContext::shared();
  const int64_t N = logits.view().dim(0), E = logits.view().dim(1);
  const Buffer z = on_gpu(logits.view()), b = on_gpu(bias.view());
  const Buffer s(DType::f32, {N, E}, Device::cuda), w(DType::f32, {N, k}, Device::cuda);
  const Buffer experts(DType::i32, {N, k}, Device::cuda);
  route_forward(gpu, {.logits = z.view(),
                      .bias = b.view(),
                      .given = {},
                      .scores = s.view(),
                      .experts = experts.view(),
                      .weights = w.view(),
                      .params = params});
  SLUICE_CUDA(cudaDeviceSynchronize());
  return {on_host(experts.view()), on_host(w.view()), on_host(s.view())};
}

// Of the scores as they came out, every choice is a plain sort's.
TEST_F(MoeGpu, ChoosesAsASortDoes) {
  for (const RouteParams& law : kLaws)
    for (const auto& [E, k] : {std::pair<int64_t, int64_t>{3, 3}, {64, 8}, {256, 8}, {1024, 20}}) {
      const int64_t N = 300;
      const Buffer z(DType::f32, {N, E}), bias(DType::f32, {E});
      fill_normal(z.view(), 3), fill_normal(bias.view(), 4);
      const Routed r = run_route(z, bias, k, law);
      for (int64_t n = 0; n < N; ++n) {
        const float* s = r.scores.view().row<float>(n);
        std::vector<int> order(static_cast<size_t>(E));
        for (int e = 0; e < E; ++e) order[size_t(e)] = e;
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
          return s[a] + bias.view().as<float>()[a] > s[b] + bias.view().as<float>()[b];
        });
        for (int64_t j = 0; j < k; ++j)
          ASSERT_EQ(r.experts.view().row<int32_t>(n)[j], order[size_t(j)])
              << "E " << E << " token " << n << " choice " << j;
      }
    }
}

TEST_F(MoeGpu, TiesAndNaN) {
  const int64_t E = 100, k = 5;
  const Buffer z(DType::f32, {4, E}), bias(DType::f32, {E});
  fill(z.view(), 0.3), fill(bias.view(), 0);
  z.view().row<float>(1)[40] = 90, z.view().row<float>(1)[7] = 40;  // one score: 1
  for (int64_t e = 0; e < E; ++e) z.view().row<float>(2)[e] = NAN;
  z.view().row<float>(3)[99] = -0.5F;
  const Routed r = run_route(z, bias, k, kLaws[0]);
  const auto row = [&](int64_t n) {
    const int32_t* e = r.experts.view().row<int32_t>(n);
    return std::vector<int32_t>(e, e + k);
  };
  EXPECT_EQ(row(0), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(row(1), (std::vector<int32_t>{7, 40, 0, 1, 2}));
  EXPECT_EQ(row(2), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(row(3), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(std::isnan(r.weights.view().row<float>(2)[0]));
}

// A gradient in bf16 is the one in f32, rounded once.
TEST_F(MoeGpu, LogitGradientsMayBeNarrow) {
  const GpuContext& gpu = GpuContext::shared();
  const int64_t N = 50, E = 70, k = 4;
  const Buffer s(DType::f32, {N, E}), dw(DType::f32, {N, k});
  fill_normal(s.view(), 1), fill_normal(dw.view(), 2);
  const Buffer experts = on_gpu(choices(N, k, E).view()), ds = on_gpu(s.view()),
               ddw = on_gpu(dw.view());
  const Buffer wide(DType::f32, {N, E}, Device::cuda), narrow(DType::bf16, {N, E}, Device::cuda);
  for (const RouteParams& law : kLaws) {
    for (const Buffer* to : {&wide, &narrow})
      route_backward(gpu, {.scores = ds.view(),
                           .experts = experts.view(),
                           .dweights = ddw.view(),
                           .dlogits = {to->view()},
                           .params = law});
    SLUICE_CUDA(cudaDeviceSynchronize());
    const Buffer w = on_host(wide.view()), n = on_host(narrow.view());
    for (int64_t i = 0; i < N * E; ++i)
      ASSERT_EQ(element(n.view(), i), from_bf16(to_bf16(element(w.view(), i)))) << i;
  }
}

TEST_F(MoeGpu, SortIsTheReferences) {
  const GpuContext& gpu = GpuContext::shared();
  for (const auto& [k, E] : {std::pair<int64_t, int64_t>{1, 2}, {2, 3}, {8, 64}, {5, 1024}})
    for (int64_t N : {0, 1, 2, 103, 5000}) {
      const Buffer experts = choices(N, k, E), place(DType::i32, {N, k}),
                   offsets(DType::i32, {E + 1});
      const Buffer counts(DType::i64, {E});
      const Buffer d_experts = on_gpu(experts.view()), d_place = on_gpu(place.view()),
                   d_offsets = on_gpu(offsets.view()), d_counts = on_gpu(counts.view());
      for (int i = 0; i < 2; ++i) {  // counts add up
        dispatch_plan({.mode = Mode::reference}, {.experts = experts.view(),
                                                  .place = place.view(),
                                                  .offsets = offsets.view(),
                                                  .counts = counts.view()});
        dispatch_plan(gpu, {.experts = d_experts.view(),
                            .place = d_place.view(),
                            .offsets = d_offsets.view(),
                            .counts = d_counts.view()});
      }
      SLUICE_CUDA(cudaDeviceSynchronize());
      EXPECT_EQ(gpu.arena.used(), 0);
      const Buffer p = on_host(d_place.view()), o = on_host(d_offsets.view()),
                   c = on_host(d_counts.view());
      for (int64_t i = 0; i < N * k; ++i)
        ASSERT_EQ(p.view().as<int32_t>()[i], place.view().as<int32_t>()[i]) << N << " " << i;
      for (int64_t e = 0; e <= E; ++e)
        ASSERT_EQ(o.view().as<int32_t>()[e], offsets.view().as<int32_t>()[e]) << N << " " << e;
      for (int64_t e = 0; e < E; ++e)
        ASSERT_EQ(c.view().as<int64_t>()[e], counts.view().as<int64_t>()[e]) << N << " " << e;
    }
}

TEST_F(MoeGpu, RowsAgreeWithReferenceInF64) {
  for (const auto& [D, k] :
       {std::pair<int64_t, int64_t>{1, 1}, {64, 2}, {67, 3}, {520, 8}, {8, 32}})
    for (int64_t N : {1, 67}) {
      expect_gpu_near_reference(dispatch_case(D, k), N);
      expect_gpu_near_reference(combine_case(D, k), N);
    }
  expect_gpu_op_promises(dispatch_case(64, 3));
  expect_gpu_op_promises(combine_case(64, 3));
}

}  // namespace
}  // namespace sluice::test
