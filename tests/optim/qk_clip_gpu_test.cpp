// tests/optim/qk_clip_gpu_test.cpp -- QK-clip and the control of a step on CUDA: the CPU's numbers.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/step_control/step_control.h"
#include "model/autograd/plain_store.h"
#include "optim/qk_clip.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

using UpdateOnGpu = GpuTest;

struct Projections {
  explicit Projections(const Context& ctx) : ctx(ctx), store(DType::f32, ctx.device) {
    const int group = store.add_group("layer");
    store.add({.name = "q", .shape = {3 * 24, 40}, .group = group, .heads = {3, 16, 8}});
    store.add({.name = "kv", .shape = {3 * 32, 40}, .group = group, .heads = {3, 16, 0}});
    store.add({.name = "o", .shape = {40, 48}, .group = group});
    store.allocate();
    initialize(store, 3);
    for (const Shard& s : store.shards()) {
      const Buffer host(DType::f32, {s.master.dim(0)});
      fill_normal(host.view(), 5, 0.1);
      copy(host.view(), s.master);
    }
    store.refresh(ctx);
    stats = std::make_unique<StepStats>(store, ctx.device);
    float logits[] = {3, 64, -std::numeric_limits<float>::infinity()};
    copy(make_tensor(logits, DType::f32, Device::cpu, {1, 3}), stats->max_logits());
  }
  std::vector<Buffer> values(bool copies) const {
    std::vector<Buffer> list;
    for (const Shard& s : store.shards()) {
      Tensor like = copies ? s.copy : s.master;
      list.emplace_back(like.dtype, std::initializer_list<int64_t>{like.dim(0)});
      copy(like, list.back().view());
    }
    return list;
  }
  Context ctx;
  PlainStore store;
  std::unique_ptr<StepStats> stats;
};

TEST_F(UpdateOnGpu, QkClipIsTheCpus) {
  const CpuContext cpu;
  const GpuContext& gpu = GpuContext::shared();
  Projections on_cpu(cpu), on_gpu(gpu);
  const Buffer state(DType::u8, {sizeof(StepState)}, Device::cuda);
  auto* device = static_cast<StepState*>(state.view().data);
  StepState host;
  for (const int skip : {1, 0}) {
    host.skip = skip;
    copy(make_tensor(&host, DType::u8, Device::cpu, {sizeof host}), state.view());
    qk_clip(cpu, on_cpu.store, *on_cpu.stats, 16, &host);
    qk_clip(gpu, on_gpu.store, *on_gpu.stats, 16, device);
    const auto want = on_cpu.values(false), got = on_gpu.values(false);
    for (size_t i = 0; i < want.size(); ++i)
      expect_same_bits(got[i].view(), want[i].view(), cat(i, ", skip ", skip));
    const auto copies = on_gpu.values(true);
    on_gpu.store.refresh(gpu);
    const auto rounded = on_gpu.values(true);
    for (size_t i = 0; i < want.size(); ++i)
      expect_same_bits(copies[i].view(), rounded[i].view(), cat("copy ", i));
  }
}

TEST_F(UpdateOnGpu, AStepIsBegunAddedToAndDecidedAsOnTheCpu) {
  const CpuContext cpu;
  const GpuContext& gpu = GpuContext::shared();
  const Buffer state(DType::u8, {sizeof(StepState)}, Device::cuda), terms(DType::f64, {2}),
      device_terms(DType::f64, {2}, Device::cuda);
  auto* device = static_cast<StepState*>(state.view().data);
  StepState host{.step = 4};
  copy(make_tensor(&host, DType::u8, Device::cpu, {sizeof host}), state.view());
  for (const double z : {0.25, double(NAN), 0.5, double(INFINITY), 0.0}) {
    begin_step(cpu, &host, 0.5F);
    begin_step(gpu, device, 0.5F);
    for (const double x : {0.1, 0.7, 1e-9}) {
      terms.view().as<double>()[0] = x;
      terms.view().as<double>()[1] = x == 0.7 ? z : 0.125;
      copy(terms.view(), device_terms.view());
      add_loss(cpu, terms.view(), &host);
      add_loss(gpu, device_terms.view(), device);
    }
    host.skip = 0;  // as clip_factor leaves it for gradients that are finite
    SLUICE_CUDA(cudaMemset(&device->skip, 0, sizeof device->skip));
    decide(cpu, &host);
    decide(gpu, device);
    StepState got;
    copy(state.view(), make_tensor(&got, DType::u8, Device::cpu, {sizeof got}));
    EXPECT_EQ(got.step, host.step);
    EXPECT_EQ(got.skip, std::isfinite(z) ? 0 : 1);
    EXPECT_EQ(got.skip, host.skip);
    EXPECT_EQ(got.lr, 0.5F);
    EXPECT_EQ(got.cross_entropy, host.cross_entropy);
    EXPECT_EQ(std::isnan(got.z_loss), std::isnan(host.z_loss));
  }
  EXPECT_EQ(host.step, 7);
}

}  // namespace
}  // namespace sluice::test
