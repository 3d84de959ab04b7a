// tests/kernels/muon_gpu_test.cpp -- Muon on CUDA against the f64 reference.
//
// The momentum is f32 on both sides. What the products add: X, X X^T, the polynomial P = b G + c
// G^2 and the next X are rounded to bf16, which is 1.1e-3 of an element in the mean square root.
// Near 1, where the singular values end up, a X + P X takes 2.7 X from 3.4 X, so an iteration
// leaves about 4e-3 of X; and errors are carried on by the derivative of the map, between -1.5 and
// 1 where most values are. Five iterations: 1 to 3 %, as ||error|| / ||direction||. What the map
// itself leaves of an orthogonal factor is ten times that, by intent.
#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/cast/cast.h"
#include "kernels/muon/muon.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

using MuonGpu = GpuTest;

Buffer on_gpu(const Tensor& host) {
  Tensor like = host;
  like.device = Device::cuda;
  Buffer b(like);
  copy(host, b.view());
  return b;
}
Buffer on_host(const Tensor& device) {
  Tensor like = device;
  like.device = Device::cpu;
  Buffer b(like);
  copy(device, b.view());
  return b;
}

struct Problem {
  Problem(int64_t B, int64_t m, int64_t n)
      : param(DType::f32, {B, m, n}), grad(param.view()), momentum(param.view()) {
    fill_normal(param.view(), 1, 0.02);
    fill_normal(grad.view(), 2, 1e-3);
    fill_normal(momentum.view(), 3, 1e-3);
  }
  Buffer param, grad, momentum;
};
struct Result {
  Buffer param, momentum, copy;
};

// One element off the alignment of 16 bytes, if asked for.
Result run_gpu(const Problem& p, const StepState& state, bool aligned = true) {
  const GpuContext& gpu = GpuContext::shared();
  const int64_t B = p.param.view().dim(0), m = p.param.view().dim(1), n = p.param.view().dim(2);
  const int64_t size = p.param.view().numel(), off = aligned ? 0 : 1;
  const Buffer memory[3] = {Buffer(DType::f32, {size + 1}, Device::cuda),
                            Buffer(DType::f32, {size + 1}, Device::cuda),
                            Buffer(DType::f32, {size + 1}, Device::cuda)};
  const Buffer copies(DType::bf16, {size + 1}, Device::cuda);
  const auto place = [&](const Buffer& at) { return at.view().rows(off, size).reshape({B, m, n}); };
  copy(p.param.view(), place(memory[0]));
  copy(p.grad.view(), place(memory[1]));
  copy(p.momentum.view(), place(memory[2]));
  StepState host = state;
  const Buffer s = on_gpu(make_tensor(&host, DType::u8, Device::cpu, {sizeof host}));
  muon(gpu, {.param = place(memory[0]),
             .grad = place(memory[1]),
             .m = place(memory[2]),
             .copy = place(copies),
             .state = static_cast<const StepState*>(s.view().data),
             .lr_scale = 0.5,
             .weight_decay = 0.1});
  return {on_host(place(memory[0])), on_host(place(memory[2])), on_host(place(copies))};
}

const StepState kState{.step = 3, .lr = 0.02F, .grad_scale = 0.5F};

TEST_F(MuonGpu, IsTheReference) {
  for (const auto& [B, m, n] : std::initializer_list<std::array<int64_t, 3>>{{1, 5, 9},
                                                                             {3, 16, 16},
                                                                             {2, 48, 100},
                                                                             {2, 100, 40},
                                                                             {9, 64, 72},
                                                                             {1, 161, 130},
                                                                             {1, 1, 7}}) {
    const Problem p(B, m, n);
    const Buffer param = on_host(p.param.view()), momentum = on_host(p.momentum.view());
    muon(CpuContext(Mode::reference, 1, 64 << 20), {.param = param.view(),
                                                    .grad = p.grad.view(),
                                                    .m = momentum.view(),
                                                    .state = &kState,
                                                    .lr_scale = 0.5,
                                                    .weight_decay = 0.1});
    for (const bool aligned : {true, false}) {
      const Result got = run_gpu(p, kState, aligned);
      const ErrorStats e = compare(got.momentum.view(), momentum.view(), 8);  // a few roundings
      EXPECT_LE(e.worst, 1) << e;
      double error = 0, size = 0, worst = 0;
      for (int64_t i = 0; i < param.view().numel(); ++i) {
        const double before = element(p.param.view(), i) * (1 - 0.01 * 0.1);
        const double w = element(param.view(), i) - before,
                     g = element(got.param.view(), i) - before;
        error += (g - w) * (g - w), size += w * w, worst = std::max(worst, std::abs(g - w));
      }
      const double rms = std::sqrt(error / size),
                   typical = std::sqrt(size / double(param.view().numel()));
      std::printf("  %lld of %lld x %lld: direction off by %.1e, worst element %.1e\n",
                  static_cast<long long>(B), static_cast<long long>(m), static_cast<long long>(n),
                  rms, worst / typical);
      EXPECT_LE(rms, 0.03);
      EXPECT_LE(worst, 6 * 0.03 * typical);  // a net
      const Buffer rounded(DType::bf16, {param.view().numel()});
      cast({}, {.from = got.param.view().reshape({param.view().numel()}), .to = rounded.view()});
      expect_same_bits(got.copy.view().reshape({param.view().numel()}), rounded.view(), "copy");
    }
  }
}

TEST_F(MuonGpu, TheSameBitsAgainAndNothingIfSkipped) {
  const Problem p(9, 64, 72);
  const Result once = run_gpu(p, kState), again = run_gpu(p, kState);
  expect_same_bits(once.param.view(), again.param.view(), "again");
  expect_same_bits(once.momentum.view(), again.momentum.view(), "again");
  StepState skip = kState;
  skip.skip = 1;
  const Result skipped = run_gpu(p, skip);
  expect_same_bits(skipped.param.view(), p.param.view(), "skipped");
  expect_same_bits(skipped.momentum.view(), p.momentum.view(), "skipped");
}

// No direction, and none from the matrices beside it.
TEST_F(MuonGpu, ZeroGradientsLeaveDecayAlone) {
  Problem p(3, 16, 24);
  for (int64_t i = 16 * 24; i < 2 * 16 * 24; ++i)
    p.grad.view().as<float>()[i] = p.momentum.view().as<float>()[i] = 0;
  const Result got = run_gpu(p, kState);
  for (int64_t i = 16 * 24; i < 2 * 16 * 24; ++i) {
    const double before = element(p.param.view(), i);
    ASSERT_NEAR(element(got.param.view(), i), before * (1 - 0.01 * 0.1), 1e-7 * std::abs(before));
  }
}

TEST_F(MuonGpu, PlanIsRun) {
  GpuContext& gpu = GpuContext::shared();
  run_gpu(Problem(9, 64, 72), kState);
  const int64_t used = gpu.arena.peak();
  Arena plan = Arena::plan(Device::cuda);
  const Tensor t = make_tensor(nullptr, DType::f32, Device::cuda, {9, 64, 72});
  muon({.device = Device::cuda, .mode = Mode::plan, .arena = &plan},
       {.param = t, .grad = t, .m = t, .state = nullptr});
  EXPECT_EQ(plan.peak(), used);
}

}  // namespace
}  // namespace sluice::test
