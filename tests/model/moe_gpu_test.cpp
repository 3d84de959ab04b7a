// tests/model/moe_gpu_test.cpp -- a whole model with experts on CUDA in bf16 against the CPU in
// f32. The GPU's routers choose what the CPU's chose: a choice that rounding flips is a jump, which
// no bound on rounding covers.
#include <gtest/gtest.h>

#include <cstdio>

#include "model/autograd/moe_ops.h"
#include "model/autograd/plain_store.h"
#include "model/autograd/step_stats.h"
#include "model/lm/lm.h"
#include "optim/expert_bias.h"
#include "tests/support/gpu_problem.h"
#include "tests/support/tiny_model.h"

namespace sluice::test {
namespace {

// Of 8 experts 1, 4 and 7 get nothing.
LmConfig experts_config() {
  LmConfig c = tiny_config();
  c.ratio = "1:1";
  c.ffn = "moe";
  c.hidden_size = 128;
  c.intermediate_size = 256;
  c.vocab_size = 500;
  c.num_hidden_layers = 4;
  c.kda.num_heads = c.kda.num_value_heads = 2;
  c.kda.head_dim = 64;
  c.mla.kv_lora_rank = 64;
  c.mla.qk_nope_head_dim = 32;
  c.mla.qk_rope_head_dim = 16;
  c.mla.v_head_dim = 32;
  c.moe = {.num_experts = 8, .num_experts_per_token = 3, .moe_intermediate_size = 48};
  c.initializer_range = 0.05;
  return c;
}

Buffer on(Device device, const Tensor& t) {
  Tensor like = t;
  like.device = device;
  Buffer b(like);
  copy(t, b.view());
  return b;
}

struct Model {
  explicit Model(const Context& on_device)
      : ctx(on_device), params(DType::f32, ctx.device), lm(experts_config(), params) {
    PlainStore host(DType::f32);
    const Lm same(experts_config(), host);
    host.allocate();
    initialize(host, 7);
    set_unequal_loads(host);
    params.allocate();
    for (size_t i = 0; i < host.shards().size(); ++i) {
      const Tensor& m = host.shards()[i].master;  // as bf16 has them, so that copies are exact
      const bool bias = host.spec({int(i)}).rule == UpdateRule::expert_load;
      for (int64_t e = 0; e < m.numel() && !bias; ++e)
        set_element(m, e, from_bf16(to_bf16(element(m, e))));
      copy(m, params.shards()[i].master);
    }
    params.refresh(ctx);
    stats = std::make_unique<StepStats>(params, ctx.device);
    stats->start_step(ctx);
  }
  double pass(const Documents& documents, Recompute recompute, RouterChoices* choices = nullptr) {
    const LmBatch b = documents.batch();
    std::vector<Buffer> memory;
    for (const Tensor* t : {&b.tokens, &b.targets, &b.loss_scale, &b.sequences.cu_seqlens})
      memory.push_back(on(ctx.device, *t));
    params.start_step();
    Tape tape(ctx, params, Tape::Mode::train);
    tape.count_into(stats.get());
    tape.replay_choices(choices);
    const Var loss = lm.loss(tape,
                             {.tokens = memory[0].view(),
                              .targets = memory[1].view(),
                              .loss_scale = memory[2].view(),
                              .sequences = {memory[3].view(), {}}},
                             recompute);
    double value = 0;
    copy(loss.value, make_tensor(&value, DType::f64, Device::cpu, {1}));
    tape.backward(loss);
    params.finish_gradients();
    return value;
  }
  std::vector<Buffer> gradients() const {
    std::vector<Buffer> list;
    for (const Shard& s : params.trained_shards()) list.push_back(on(Device::cpu, s.grad));
    return list;
  }
  Context ctx;
  PlainStore params;
  Lm lm;
  std::unique_ptr<StepStats> stats;
};

using MoeModelGpu = GpuTest;

TEST_F(MoeModelGpu, LossAndGradientsAreThoseOfTheCpu) {
  const CpuContext cpu_ctx;
  const GpuContext gpu_ctx;
  Model cpu(cpu_ctx), gpu(gpu_ctx);
  const Documents documents({40, 1, 130, 64, 65, 212});
  RouterChoices of_cpu, same;
  const double want = cpu.pass(documents, Recompute::none, &of_cpu);
  for (const ParamId bias : cpu.stats->expert_biases())
    same.keep(bias, on(Device::cuda, of_cpu.find(bias)).view());
  const double got = gpu.pass(documents, Recompute::none, &same);
  std::printf("  loss %.6f on the GPU, %.6f on the CPU\n", got, want);
  EXPECT_NEAR(got, want, 1e-3 * want);
  const std::vector<Buffer> g = gpu.gradients(), w = cpu.gradients();
  double errors = 0, all = 0;
  for (size_t i = 0; i < g.size(); ++i) {
    const std::string& name = cpu.params.spec(cpu.params.trained_shards()[i].id).name;
    double error = 0, size = 0;
    for (int64_t e = 0; e < g[i].view().numel(); ++e) {
      const double x = element(g[i].view(), e), y = element(w[i].view(), e);
      error += (x - y) * (x - y), size += y * y;
    }
    std::printf("  %-40s %.1e of %.1e\n", name.c_str(), std::sqrt(error / size), std::sqrt(size));
    // As in lm_gpu_test.cpp. A router's is a sum over tokens of differences between experts.
    const bool cancels = name.find("A_log") != std::string::npos;
    EXPECT_LE(std::sqrt(error / size), cancels ? 0.15 : 0.05) << name;
    errors += error, all += size;
  }
  std::printf("  all gradients: %.1e\n", std::sqrt(errors / all));
  EXPECT_LE(std::sqrt(errors / all), 0.04);

  // Every token counts k times, on the GPU as on the CPU; experts without a token are the same.
  const Buffer counts = on(Device::cpu, gpu.stats->expert_counts());
  for (int64_t i = 0; i < counts.view().numel(); ++i)
    EXPECT_EQ(counts.view().as<int64_t>()[i], cpu.stats->expert_counts().as<int64_t>()[i]) << i;
}

// The router's own choices: equal runs make equal bits, recomputed blocks too, and count once.
TEST_F(MoeModelGpu, RunsAndRecomputationChangeNoBit) {
  const GpuContext gpu_ctx;
  Model gpu(gpu_ctx);
  const Documents documents({40, 1, 130, 64, 65, 212});
  const double loss = gpu.pass(documents, Recompute::none);
  const std::vector<Buffer> g = gpu.gradients();
  const Buffer counts = on(Device::cpu, gpu.stats->expert_counts());
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    gpu.stats->start_step(gpu_ctx);
    EXPECT_EQ(gpu.pass(documents, recompute), loss);
    const std::vector<Buffer> again = gpu.gradients();
    for (size_t i = 0; i < g.size(); ++i)
      expect_same_bits(g[i].view(), again[i].view(),
                       gpu.params.spec(gpu.params.trained_shards()[i].id).name);
    const Buffer counted = on(Device::cpu, gpu.stats->expert_counts());
    for (int64_t i = 0; i < counts.view().numel(); ++i)
      ASSERT_EQ(counted.view().as<int64_t>()[i], counts.view().as<int64_t>()[i]) << i;
  }
}

TEST_F(MoeModelGpu, PlannedMemoryIsUsed) {
  GpuContext gpu_ctx;
  Model gpu(gpu_ctx);
  const Documents documents({40, 1, 130, 64, 65, 212});
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    gpu_ctx.arena.reset_peak();
    gpu.pass(documents, recompute);
    Arena plan = Arena::plan(Device::cuda);
    Context ctx = gpu_ctx;
    ctx.mode = Mode::plan;
    ctx.arena = &plan;
    gpu.params.start_step();
    Tape tape(ctx, gpu.params, Tape::Mode::train);
    LmBatch batch = documents.batch();
    for (Tensor* t :
         {&batch.tokens, &batch.targets, &batch.loss_scale, &batch.sequences.cu_seqlens})
      t->device = Device::cuda;
    tape.backward(gpu.lm.loss(tape, batch, recompute));
    EXPECT_EQ(plan.peak(), gpu_ctx.arena.peak());
    EXPECT_EQ(gpu_ctx.arena.used(), 0);
  }
}

// The update of the biases, with the state where the device reads it.
TEST_F(MoeModelGpu, BiasesMoveAsOnTheCpu) {
  const CpuContext cpu_ctx;
  const GpuContext gpu_ctx;
  Model cpu(cpu_ctx), gpu(gpu_ctx);
  const Tensor& loads = cpu.stats->expert_counts();
  for (int64_t i = 0; i < loads.numel(); ++i)
    loads.as<int64_t>()[i] = int64_t(random_u64(3, uint64_t(i)) % 5) << 40;
  loads.as<int64_t>()[0] = loads.as<int64_t>()[1];
  copy(loads, gpu.stats->expert_counts());
  for (const int skip : {0, 1, 0}) {
    StepState state{.skip = skip};
    const Tensor bytes = make_tensor(&state, DType::u8, Device::cpu, {sizeof state});
    const Buffer device_state = on(Device::cuda, bytes);
    update_expert_bias(cpu_ctx, cpu.params, *cpu.stats, 0.001, &state);
    update_expert_bias(gpu_ctx, gpu.params, *gpu.stats, 0.001,
                       static_cast<StepState*>(device_state.view().data));
    for (size_t i = 0; i < cpu.params.shards().size(); ++i)
      expect_same_bits(on(Device::cpu, gpu.params.shards()[i].master).view(),
                       cpu.params.shards()[i].master, cpu.params.spec({int(i)}).name);
  }
}

}  // namespace
}  // namespace sluice::test
