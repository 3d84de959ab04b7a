// tests/model/lm_gpu_test.cpp -- a whole model on CUDA in bf16 against the CPU in f32: loss,
// gradients, and some steps of training.
#include <gtest/gtest.h>

#include <cstdio>

#include "model/autograd/plain_store.h"
#include "model/lm/lm.h"
#include "optim/optimizer.h"
#include "tests/support/gpu_problem.h"
#include "tests/support/tiny_model.h"

namespace sluice::test {
namespace {

LmConfig dense(const std::string& ratio, bool tied) {
  LmConfig c = tiny_config();
  c.ratio = ratio;
  c.hidden_size = 128;
  c.intermediate_size = 256;
  c.vocab_size = 500;
  c.num_hidden_layers = 3;
  c.tie_word_embeddings = tied;
  c.kda.num_heads = 2;
  c.kda.num_value_heads = 2;
  c.kda.head_dim = 64;
  c.mla.num_attention_heads = 2;
  c.mla.kv_lora_rank = 64;
  c.mla.qk_nope_head_dim = 32;
  c.mla.qk_rope_head_dim = 16;
  c.mla.v_head_dim = 32;
  c.initializer_range = 0.05;
  return c;
}

LmBatch on_device(const LmBatch& b, std::vector<Buffer>& memory) {
  const auto move = [&](const Tensor& t) {
    Tensor like = t;
    like.device = Device::cuda;
    memory.emplace_back(like);
    copy(t, memory.back().view());
    return memory.back().view();
  };
  LmBatch d = b;
  d.tokens = move(b.tokens), d.targets = move(b.targets), d.loss_scale = move(b.loss_scale);
  d.sequences.cu_seqlens = move(b.sequences.cu_seqlens);
  return d;
}

// A model on one device, and one pass over it.
struct Model {
  Model(const LmConfig& config, const Context& ctx)
      : ctx(ctx), params(DType::f32, ctx.device), lm(config, params) {
    params.allocate();
    initialize(params, 7);
    round_weights();
    params.refresh(ctx);
  }
  // So that the bf16 copies are exact, and what is compared is the arithmetic.
  void round_weights() {
    for (const Shard& s : params.shards()) {
      const Buffer host(DType::f32, {s.master.dim(0)});
      copy(s.master, host.view());
      for (int64_t i = 0; i < host.view().numel(); ++i)
        set_element(host.view(), i, from_bf16(to_bf16(element(host.view(), i))));
      copy(host.view(), s.master);
    }
  }
  double pass(const LmBatch& batch, Recompute recompute) {
    params.start_step();
    Tape tape(ctx, params, Tape::Mode::train);
    const Var loss = lm.loss(tape, batch, recompute);
    double value = 0;
    copy(loss.value, make_tensor(&value, DType::f64, Device::cpu, {1}));
    tape.backward(loss);
    params.finish_gradients();
    return value;
  }
  // By shard, on the host.
  std::vector<Buffer> gradients() {
    std::vector<Buffer> list;
    for (const Shard& s : params.shards()) {
      list.emplace_back(DType::f32, std::initializer_list<int64_t>{s.grad.dim(0)});
      copy(s.grad, list.back().view());
    }
    return list;
  }
  Context ctx;
  PlainStore params;
  Lm lm;
};

struct Case {
  const char* name;
  LmConfig config;
};

// Mixers and their variants; sequences are longer than a chunk, heads grouped where that is said.
std::vector<Case> cases() {
  std::vector<Case> all{{"kda", dense("1:0", false)},
                        {"kda and mla, tied", dense("2:1", true)},
                        {"mla", dense("0:1", false)},
                        {"gdn and mla", dense("2:1", false)},
                        {"mamba2", dense("1:0", false)},
                        {"gdn, grouped, no convolution or gate", dense("2:1", false)},
                        {"kda, heads of 40, no convolution", dense("2:1", false)}};
  all.push_back({"mla, rotated", dense("0:1", false)});
  all.back().config.mla.use_nope = false;
  all[3].config.linear = "gdn";
  all[4].config.linear = "mamba2";
  KdaConfig& gdn = all[5].config.kda;
  all[5].config.linear = "gdn";
  gdn.num_value_heads = 4, gdn.short_conv_kernel_size = 0, gdn.output_gate = "none";
  gdn.allow_neg_eigval = true;
  KdaConfig& kda = all[6].config.kda;
  kda.head_dim = 40, kda.short_conv_kernel_size = 0, kda.use_full_rank_gate = true;
  return all;
}

using LmGpu = GpuTest;

TEST_F(LmGpu, LossAndGradientsAreThoseOfTheCpu) {
  for (const auto& [name, config] : cases()) {
    std::printf(" %s\n", name);
    const CpuContext cpu_ctx;
    const GpuContext gpu_ctx;
    Model cpu(config, cpu_ctx), gpu(config, gpu_ctx);
    const Documents documents({40, 1, 130, 64, 65, 212});
    std::vector<Buffer> memory;
    const LmBatch batch = documents.batch(), device_batch = on_device(batch, memory);
    const double want = cpu.pass(batch, Recompute::none);
    const double got = gpu.pass(device_batch, Recompute::none);
    std::printf("  loss %.6f on the GPU, %.6f on the CPU\n", got, want);
    // 512 tokens' mean; each logit is off by about 2^-8 of its size, which is below 1.
    EXPECT_NEAR(got, want, 1e-3 * want);
    const std::vector<Buffer> g = gpu.gradients(), w = cpu.gradients();
    double errors = 0, all = 0;
    for (size_t i = 0; i < g.size(); ++i) {
      const std::string& parameter = cpu.params.spec(cpu.params.shards()[i].id).name;
      double error = 0, size = 0;
      for (int64_t e = 0; e < g[i].view().numel(); ++e) {
        const double x = element(g[i].view(), e), y = element(w[i].view(), e);
        error += (x - y) * (x - y), size += y * y;
      }
      std::printf("  %-32s %.1e of %.1e\n", parameter.c_str(), std::sqrt(error / size),
                  std::sqrt(size));
      // Three layers of bf16 activations, each op rounding to 2^-9: sqrt of a few dozen of them,
      // times what the model amplifies. Gradients of a number a head (A_log; of gdn and mamba2
      // dt_bias too) are sums over all tokens of terms that cancel.
      const bool by_head = parameter.find("A_log") != std::string::npos ||
                           g[i].view().numel() == config.kda.num_value_heads;
      EXPECT_LE(std::sqrt(error / size), by_head ? 0.15 : 0.05) << name << " " << parameter;
      errors += error, all += size;
    }
    std::printf("  all gradients: %.1e\n", std::sqrt(errors / all));
    EXPECT_LE(std::sqrt(errors / all), 0.04);

    // The same again: the same bits, with recomputation too.
    for (Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
      EXPECT_EQ(gpu.pass(device_batch, recompute), got);
      const std::vector<Buffer> again = gpu.gradients();
      for (size_t i = 0; i < g.size(); ++i)
        expect_same_bits(g[i].view(), again[i].view(),
                         cpu.params.spec(cpu.params.shards()[i].id).name);
    }
  }
}

TEST_F(LmGpu, PlannedMemoryIsUsed) {
  const std::vector<Case> all = cases();
  for (const auto& [c, recompute] : {std::pair{1, Recompute::none},
                                     {1, Recompute::selective},
                                     {1, Recompute::block},
                                     {3, Recompute::none},
                                     {6, Recompute::none}}) {
    GpuContext gpu_ctx;
    Model gpu(all[size_t(c)].config, gpu_ctx);
    const Documents documents({40, 1, 130, 64, 65, 212});
    std::vector<Buffer> memory;
    const LmBatch batch = on_device(documents.batch(), memory);
    gpu.pass(batch, recompute);
    Arena plan = Arena::plan(Device::cuda);
    Context ctx = gpu_ctx;
    ctx.mode = Mode::plan;
    ctx.arena = &plan;
    gpu.params.start_step();
    Tape tape(ctx, gpu.params, Tape::Mode::train);
    tape.backward(gpu.lm.loss(tape, batch, recompute));
    EXPECT_EQ(plan.peak(), gpu_ctx.arena.peak()) << all[size_t(c)].name;
    EXPECT_EQ(gpu_ctx.arena.used(), 0);
  }
}

// Overfits one batch on both devices; losses stay together as long as rounding lets them.
TEST_F(LmGpu, TrainsAsTheCpuDoes) {
  const CpuContext cpu_ctx;
  const GpuContext gpu_ctx;
  const LmConfig config = dense("2:1", false);
  Model cpu(config, cpu_ctx), gpu(config, gpu_ctx);
  const Documents documents({40, 1, 130, 64, 65, 212});
  std::vector<Buffer> memory;
  const LmBatch batch = documents.batch(), device_batch = on_device(batch, memory);
  OptimConfig optim;
  Optimizer for_cpu(optim, cpu.params), for_gpu(optim, gpu.params);
  Buffer device_state(DType::u8, {sizeof(StepState)}, Device::cuda);
  double first = 0, last = 0;
  for (int64_t step = 1; step <= 20; ++step) {
    const double want = cpu.pass(batch, Recompute::none),
                 got = gpu.pass(device_batch, Recompute::none);
    StepState state{.step = step, .lr = 2e-3F}, state_after;
    copy(make_tensor(&state, DType::u8, Device::cpu, {sizeof state}), device_state.view());
    for_cpu.clip(cpu_ctx, &state);
    for_cpu.step(cpu_ctx, &state);
    auto* on_gpu = static_cast<StepState*>(device_state.view().data);
    for_gpu.clip(gpu_ctx, on_gpu);
    for_gpu.step(gpu_ctx, on_gpu);
    gpu.params.refresh(gpu_ctx);
    copy(device_state.view(), make_tensor(&state_after, DType::u8, Device::cpu, {sizeof state}));
    std::printf("  step %2lld loss %.5f, on the CPU %.5f; gradient norm %.5f, %.5f\n",
                static_cast<long long>(step), got, want, double(state_after.grad_norm),
                double(state.grad_norm));
    if (step == 1) first = got;
    EXPECT_NEAR(got, want, 0.005 * first) << step;
    last = got;
  }
  EXPECT_LT(last, 0.1 * first);
}

}  // namespace
}  // namespace sluice::test
