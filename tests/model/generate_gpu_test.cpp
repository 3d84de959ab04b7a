// tests/model/generate_gpu_test.cpp -- generation on CUDA in bf16: against the CPU in f32, pieces
// against steps, batched against one by one (to the bit), recorded steps against queued ones.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>

#include "model/generate/scheduler.h"
#include "tests/support/gpu_problem.h"
#include "tests/support/tiny_model.h"

namespace sluice::test {
namespace {

LmConfig config_of(const std::string& ratio, bool rotated) {
  LmConfig c = tiny_config();
  c.ratio = ratio;
  c.hidden_size = 128;
  c.intermediate_size = 256;
  c.vocab_size = 500;
  c.num_hidden_layers = 4;
  c.kda.num_heads = 2;
  c.kda.num_value_heads = 4;
  c.kda.head_dim = 64;
  c.mla.num_attention_heads = 2;
  c.mla.kv_lora_rank = 64;
  c.mla.qk_nope_head_dim = 32;
  c.mla.qk_rope_head_dim = 16;
  c.mla.v_head_dim = 32;
  c.mla.use_nope = !rotated;
  c.initializer_range = 0.05;
  return c;
}

// Weights that bf16 has, so that what is compared is the arithmetic.
struct Model {
  Model(const LmConfig& config, const Context& ctx)
      : ctx(ctx),
        params(DType::f32, ctx.device, PlainStore::Purpose::inference),
        lm(config, params) {
    params.allocate();
    initialize(params, 7);
    for (const Shard& s : params.shards()) {
      const Buffer host(DType::f32, {s.master.dim(0)});
      copy(s.master, host.view());
      for (int64_t i = 0; i < host.view().numel(); ++i)
        set_element(host.view(), i, from_bf16(to_bf16(element(host.view(), i))));
      copy(host.view(), s.master);
    }
    params.refresh(ctx);
  }
  Generator generator(const GeneratorOptions& o) {
    return Generator(ctx, params, lm, ctx.device == Device::cuda ? DType::bf16 : DType::f32, o);
  }
  Context ctx;
  PlainStore params;
  Lm lm;
};

std::vector<int32_t> prompt(uint64_t seed, int64_t length) {
  std::vector<int32_t> p;
  for (int64_t n = 0; n < length; ++n) p.push_back(int32_t(random_u64(seed, uint64_t(n)) % 500));
  return p;
}

// Row n of logits, which may be on the GPU.
std::vector<double> row_of(const Tensor& logits, int64_t n) {
  const Buffer host(logits.dtype, {logits.dim(1)});
  copy(logits.rows(n, 1).reshape({logits.dim(1)}), host.view());
  std::vector<double> v;
  for (int64_t i = 0; i < logits.dim(1); ++i) v.push_back(element(host.view(), i));
  return v;
}

// Logits after each of the pieces that the prompt is cut into; one token is a decode step.
std::vector<std::vector<double>> feed(Generator& g, std::span<const int32_t> tokens,
                                      const std::vector<size_t>& sizes) {
  const int64_t slot = g.join().value();
  std::vector<std::vector<double>> all;
  for (size_t i = 0; !tokens.empty(); ++i) {
    const size_t n = std::min(tokens.size(), sizes[i % sizes.size()]);
    const Generator::Piece piece{slot, tokens.first(n)};
    all.push_back(row_of(g.feed(n == 1 ? CacheStep::decode : CacheStep::prefill, {&piece, 1}), 0));
    tokens = tokens.subspan(n);
  }
  g.leave(slot);
  return all;
}

double largest(const std::vector<double>& v) {
  double m = 0;
  for (const double x : v) m = std::max(m, std::abs(x));
  return m;
}
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double m = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    m = std::max(m, std::abs(a[i] - b[i]));
  }
  return m;
}

const std::pair<const char*, bool> kModels[] = {
    {"1:0", false}, {"0:1", false}, {"0:1", true}, {"3:1", true}};

using GenerateGpu = GpuTest;

// Activations are rounded to bf16 (2^-9) a dozen times a layer, and the errors of four layers add
// up like a random walk: 2^-9 sqrt(50) = 1.4e-2 of a logit in the root mean square, the largest of
// 500 three times that.
constexpr double kBound = 0.045;

TEST_F(GenerateGpu, LogitsAreThoseOfTheCpu) {
  GpuContext gpu;
  for (const auto& [ratio, rotated] : kModels) {
    Model on_gpu(config_of(ratio, rotated), gpu), on_cpu(config_of(ratio, rotated), Context{});
    const std::vector<int32_t> text = prompt(3, 200);
    const GeneratorOptions o{.slots = 2, .max_tokens = 300, .prefill_chunk_tokens = 200};
    Generator a = on_cpu.generator(o), b = on_gpu.generator(o);
    for (const std::vector<size_t>& sizes :
         {std::vector<size_t>{200}, {150, 1}, {7, 1, 33}, {100}, {1}}) {
      const auto want = feed(a, text, sizes), got = feed(b, text, sizes);
      double worst = 0;
      for (size_t i = 0; i < want.size(); ++i)
        worst = std::max(worst, difference(got[i], want[i]) / largest(want[i]));
      std::printf("  %s%s, pieces of %zu, ...: largest difference %.4f of the largest logit\n",
                  ratio, rotated ? " rotated" : "", sizes[0], worst);
      EXPECT_LE(worst, kBound) << ratio << " " << sizes[0];
    }
    EXPECT_EQ(b.arena().peak(), b.bytes().arena);
  }
}

// Teacher-forced: where the CPU's best token leads by more than both errors, it is the GPU's too.
TEST_F(GenerateGpu, GreedyTokensAreThoseOfTheCpu) {
  GpuContext gpu;
  for (const auto& [ratio, rotated] : kModels) {
    Model on_gpu(config_of(ratio, rotated), gpu), on_cpu(config_of(ratio, rotated), Context{});
    const GeneratorOptions o{.max_tokens = 150, .prefill_chunk_tokens = 64};
    Generator a = on_cpu.generator(o), b = on_gpu.generator(o);
    const std::vector<int32_t> start = prompt(4, 50);
    const std::vector<int32_t> text =
        complete(a, {{.prompt = start, .max_new_tokens = 90}}).front().tokens;
    const auto want = feed(a, text, {1}), got = feed(b, text, {1});
    size_t same = 0, close = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const auto best = [](const std::vector<double>& v) {
        return size_t(std::max_element(v.begin(), v.end()) - v.begin());
      };
      const size_t g = best(got[i]), w = best(want[i]);
      same += g == w;
      if (g == w) continue;
      ++close;
      EXPECT_LE(want[i][w] - want[i][g], 2 * kBound * largest(want[i])) << ratio << " " << i;
    }
    std::printf("  %s%s: %zu of %zu greedy tokens are the CPU's, %zu are ties in bf16\n", ratio,
                rotated ? " rotated" : "", same, want.size(), close);
    EXPECT_GE(same, want.size() * 8 / 10);
  }
}

// Unequal prompts and texts: slots are left and joined while others decode.
std::vector<Request> requests(double temperature) {
  std::vector<Request> list;
  const int64_t lengths[] = {1, 31, 32, 33, 64, 5, 130, 2, 17, 96};
  for (size_t i = 0; i < std::size(lengths); ++i)
    list.push_back({.prompt = prompt(i, lengths[i]),
                    .max_new_tokens = 3 + int64_t(i * 13 % 40),
                    .temperature = temperature,
                    .top_k = int64_t(i % 3 * 4),
                    .top_p = i % 2 == 0 ? 1 : 0.9,
                    .key = sampling_key(5, int64_t(i))});
  return list;
}
void expect_equal(const Completion& a, const Completion& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  EXPECT_EQ(a.logprobs, b.logprobs) << what;  // every bit of them
}

TEST_F(GenerateGpu, BatchedEqualsOneByOneToTheBit) {
  GpuContext gpu;
  std::vector<LmConfig> configs;
  for (const auto& [ratio, rotated] : kModels) configs.push_back(config_of(ratio, rotated));
  configs.push_back(config_of("3:1", false));
  configs.back().ffn = "moe";
  configs.back().moe = {.num_experts = 8, .num_experts_per_token = 2, .moe_intermediate_size = 64};
  for (const LmConfig& config : configs) {
    Model model(config, gpu);
    const GeneratorOptions o{.slots = 10, .max_tokens = 300, .prefill_chunk_tokens = 32};
    for (const double temperature : {0.0, 1.0}) {
      Generator one = model.generator(o), all = model.generator(o);
      const std::vector<Completion> together = complete(all, requests(temperature));
      std::vector<Request> list = requests(temperature);
      for (size_t i = 0; i < list.size(); ++i)
        expect_equal(together[i], complete(one, {list[i]}).front(),
                     cat(config.ratio, " ", config.ffn, ", request ", i));
    }
  }
}

TEST_F(GenerateGpu, AJoinedSlotRemembersNothing) {
  GpuContext gpu;
  Model model(config_of("3:1", false), gpu);
  const GeneratorOptions o{.slots = 1, .max_tokens = 300, .prefill_chunk_tokens = 64};
  Generator fresh = model.generator(o), used = model.generator(o);
  const Request r{.prompt = prompt(3, 70), .max_new_tokens = 20};
  const Completion want = complete(fresh, {r}).front();
  complete(used, {{.prompt = prompt(4, 200), .max_new_tokens = 50}});
  expect_equal(complete(used, {r}).front(), want, "after another sequence");
  for (const MixerCache& layer : used.cache())
    for (const std::vector<Buffer>* part : {&layer.state, &layer.rows})
      for (const Buffer& b : *part)
        SLUICE_CUDA(cudaMemset(b.view().data, 0xff, size_t(b.view().bytes())));  // NaN
  expect_equal(complete(used, {r}).front(), want, "after NaN");
}

// The first step of a size is queued, the second recorded, the third launched again.
TEST_F(GenerateGpu, RecordedStepsAreTheQueuedOnes) {
  GpuContext gpu;
  Model model(config_of("3:1", false), gpu);
  const GeneratorOptions o{.slots = 2, .max_tokens = 100, .prefill_chunk_tokens = 64};
  const std::vector<int32_t> text = prompt(8, 40);
  std::vector<std::vector<std::vector<double>>> runs;
  Generator again = model.generator(o);
  for (int i = 0; i < 3; ++i) runs.push_back(feed(again, text, {1}));
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

TEST_F(GenerateGpu, NanLogitsThrowAndSoDoTwoPiecesOfPrefill) {
  GpuContext gpu;
  Model model(config_of("3:1", false), gpu);
  Generator g = model.generator({.slots = 2, .max_tokens = 100, .prefill_chunk_tokens = 64});
  const std::vector<int32_t> text = prompt(8, 4);
  const Generator::Piece two[] = {{g.join().value(), text}, {g.join().value(), text}};
  EXPECT_THROW(g.feed(CacheStep::prefill, two), Error);
  g.leave(0), g.leave(1);
  for (const Shard& s : model.params.shards())
    if (model.params.spec(s.id).name == "head.norm")
      SLUICE_CUDA(cudaMemset(s.master.data, 0xff, size_t(s.master.bytes())));
  EXPECT_THROW(complete(g, {{.prompt = {1, 2}}}), Error);
}

}  // namespace
}  // namespace sluice::test
