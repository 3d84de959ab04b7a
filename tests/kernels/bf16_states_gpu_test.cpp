// tests/kernels/bf16_states_gpu_test.cpp -- AdamW and Muon with bf16 states on CUDA: the CPU's
// random bits, any cut of a parameter, and states that lie in the host's memory.
#include <gtest/gtest.h>

#include "kernels/adamw/adamw.h"
#include "kernels/device/pinned.h"
#include "kernels/muon/muon.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

using Bf16StatesGpu = GpuTest;

Buffer on(Device device, const Tensor& t) {
  Tensor like = t;
  like.device = device;
  Buffer b(like);
  copy(t, b.view());
  return b;
}

// Host tensors of a shard, and where they lie on the GPU.
struct Shard {
  explicit Shard(int64_t n) : param(DType::f32, {n}), grad(DType::f32, {n}), m(DType::bf16, {n}) {
    fill_normal(param.view(), 1);
    fill_normal(grad.view(), 2, 0.01);
  }
  Buffer param, grad, m;
};

struct Result {
  Buffer param, m, v;
};

// Two steps on the GPU, cut at `cut` elements, from which on nothing is aligned if it is odd.
Result run_gpu(const Shard& s, int64_t cut, double beta, bool pinned = false) {
  const GpuContext& gpu = GpuContext::shared();
  const int64_t n = s.param.view().numel();
  const Buffer p = on(Device::cuda, s.param.view()), g = on(Device::cuda, s.grad.view()),
               m = on(Device::cuda, s.m.view()), v = on(Device::cuda, s.m.view());
  const PinnedBuffer host(Device::cuda, 4 * n + 16);
  const auto in_host = [&](int64_t byte) {
    return make_tensor(static_cast<char*>(host.view().data) + byte, DType::bf16, Device::cuda, {n});
  };
  const Tensor mt = pinned ? in_host(0) : m.view(),
               vt = pinned ? in_host((2 * n + 15) / 16 * 16) : v.view();
  for (int64_t step = 1; step <= 2; ++step) {
    StepState state{.step = step, .lr = 0.01F, .grad_scale = 0.5F};
    const Buffer device_state =
        on(Device::cuda, make_tensor(&state, DType::u8, Device::cpu, {sizeof state}));
    std::vector<AdamW> list;
    for (const auto& [begin, count] : {std::pair{int64_t(0), cut}, {cut, n - cut}})
      list.push_back({.param = p.view().rows(begin, count),
                      .grad = g.view().rows(begin, count),
                      .m = mt.rows(begin, count),
                      .v = vt.rows(begin, count),
                      .state = static_cast<const StepState*>(device_state.view().data),
                      .beta1 = beta,
                      .beta2 = beta,
                      .rounding = {.key = 77, .begin = begin}});
    adamw(gpu, list);
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  return {on(Device::cpu, p.view()), on(Device::cpu, mt), on(Device::cpu, vt)};
}

// With betas of 0 nothing is summed: m = g and v = g^2 are the same f32 numbers on both devices, so
// the states must be too, to the bit.
TEST_F(Bf16StatesGpu, TheBitsAreTheCpus) {
  for (const int64_t n : {int64_t(1), int64_t(1000), int64_t(100003)}) {
    const Shard s(n);
    const Result got = run_gpu(s, 0, 0);
    const Buffer p = on(Device::cpu, s.param.view()), m(s.m.view()), v(s.m.view());
    const StepState state{.step = 2, .lr = 0.01F, .grad_scale = 0.5F};
    adamw(CpuContext(), {.param = p.view(),
                         .grad = s.grad.view(),
                         .m = m.view(),
                         .v = v.view(),
                         .state = &state,
                         .beta1 = 0,
                         .beta2 = 0,
                         .rounding = {.key = 77, .begin = 0}});
    expect_same_bits(got.m.view(), m.view(), "m");
    expect_same_bits(got.v.view(), v.view(), "v");
  }
}

TEST_F(Bf16StatesGpu, NeitherCutsNorTheHostsMemoryChangeABit) {
  const Shard s(100003);
  const Result whole = run_gpu(s, 0, 0.9);
  for (const int64_t cut : {1, 2, 4, 8, 5003, 65536}) {
    const Result parts = run_gpu(s, cut, 0.9);
    expect_same_bits(parts.m.view(), whole.m.view(), "m");
    expect_same_bits(parts.v.view(), whole.v.view(), "v");
    expect_same_bits(parts.param.view(), whole.param.view(), "param");
  }
  const Result offloaded = run_gpu(s, 0, 0.9, true);
  expect_same_bits(offloaded.m.view(), whole.m.view(), "m in the host's memory");
  expect_same_bits(offloaded.v.view(), whole.v.view(), "v in the host's memory");
  expect_same_bits(offloaded.param.view(), whole.param.view(), "param");
}

// Against the f64 reference fed the same states: one place of bf16 at most, and that rarely, for a
// product that is fused on one side and not on the other.
TEST_F(Bf16StatesGpu, AdamWIsTheReference) {
  const Shard s(100003);
  const Result got = run_gpu(s, 0, 0.9);
  const Buffer p = on(Device::cpu, s.param.view()), m(s.m.view()), v(s.m.view());
  for (int64_t step = 1; step <= 2; ++step) {
    const StepState state{.step = step, .lr = 0.01F, .grad_scale = 0.5F};
    adamw(CpuContext(Mode::reference), {.param = p.view(),
                                        .grad = s.grad.view(),
                                        .m = m.view(),
                                        .v = v.view(),
                                        .state = &state,
                                        .beta1 = 0.9,
                                        .beta2 = 0.9,
                                        .rounding = {.key = 77, .begin = 0}});
  }
  int64_t other = 0;
  for (int64_t i = 0; i < m.view().numel(); ++i)
    for (const auto& [a, b] : {std::pair{&got.m, &m}, {&got.v, &v}}) {
      const int apart = std::abs(int(static_cast<uint16_t*>(a->view().data)[i]) -
                                 int(static_cast<uint16_t*>(b->view().data)[i]));
      ASSERT_LE(apart, 1) << i;
      other += apart;
    }
  std::printf("  %lld of %lld states one place apart\n", static_cast<long long>(other),
              static_cast<long long>(2 * m.view().numel()));
  EXPECT_LE(other, 200);  // of 200006
}

TEST_F(Bf16StatesGpu, MuonsMomentumIsTheCpus) {
  const GpuContext& gpu = GpuContext::shared();
  for (const auto& [B, m, n] : {std::array<int64_t, 3>{3, 16, 24}, {2, 31, 17}, {9, 64, 72}})
    for (const int64_t begin : {0, 3}) {
      const Buffer param(DType::f32, {B, m, n}), grad(param.view()), M(DType::bf16, {B, m, n});
      fill_normal(param.view(), 1), fill_normal(grad.view(), 2, 0.01);
      const Buffer gp = on(Device::cuda, param.view()), gg = on(Device::cuda, grad.view()),
                   gm = on(Device::cuda, M.view());
      StepState state{.step = 3, .lr = 0.01F, .grad_scale = 0.5F};  // M = 0.5 g, exactly
      const Buffer device_state =
          on(Device::cuda, make_tensor(&state, DType::u8, Device::cpu, {sizeof state}));
      Muon a{.param = param.view(), .grad = grad.view(), .m = M.view(), .state = &state};
      a.rounding = {.key = 5, .begin = begin};
      muon(CpuContext(), a);
      a.param = gp.view(), a.grad = gg.view(), a.m = gm.view();
      a.state = static_cast<const StepState*>(device_state.view().data);
      muon(gpu, a);
      expect_same_bits(on(Device::cpu, gm.view()).view(), M.view(), "momentum");
    }
}

}  // namespace
}  // namespace sluice::test
