// tests/trainer/export_test.cpp -- folders for other engines: what is written is read back bit by
// bit, what an engine cannot compute is refused. That transformers computes the same from the same
// names is what tests/model/kimi_linear_golden_test.cpp shows.
#include "trainer/export/export.h"

#include <gtest/gtest.h>

#include <numeric>

#include "configs/schema.h"
#include "data/tokenizer/tokenizer.h"
#include "model/export/engines/hf_reader.h"
#include "tests/support/cpu_context.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"
#include "trainer/export/import.h"
#include "trainer/loop/model_file.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_contains;

// What every engine's class can be.
LmConfig plain(const std::string& linear = "kda") {
  LmConfig c = test::tiny_config(linear);
  c.kda.num_value_heads = c.kda.num_heads;
  return c;
}
LmConfig moe() {
  LmConfig c = test::tiny_moe_config();
  c.kda.num_value_heads = c.kda.num_heads;
  return c;
}
LmConfig rotated() {
  LmConfig c = moe();
  c.ratio = "0:1";
  c.mla.use_nope = false;
  c.mla.rope_theta = 5000;
  return c;
}
LmConfig all_kda() {
  LmConfig c = test::tiny_config();  // with grouped value heads, which FLA has
  c.ratio = "1:0";
  c.kda.gate_lower_bound = -5.0;
  return c;
}

class ExportTest : public ::testing::Test {
 protected:
  // A checkpoint of random weights. Returns its run folder.
  std::string run_of(const std::string& name, const LmConfig& model, uint64_t seed = 7) {
    Config config;
    config.model = model;
    config.model.vocab_size = tokenizer_.vocab_size();
    config.data.tokenizer = folder_ / "tokenizer.json";
    tokenizer_.save(config.data.tokenizer);
    PlainStore params(DType::f32);
    const Lm lm(config.model, params);
    params.allocate();
    initialize(params, seed);
    test::set_unequal_loads(params);
    CheckpointMeta meta;
    meta.step = 3;
    meta.config_yaml = config::print(config);
    save_checkpoint(folder_ / name, meta, named_weights(params), {}, {});
    return folder_ / name;
  }
  std::string out(const std::string& name) const { return folder_ / name; }
  static Exported to(const std::string& run, const std::string& out, ExportOptions options = {}) {
    return export_checkpoint(run, out, options,
                             [](int64_t done, int64_t all) { EXPECT_LE(done, all); });
  }

  static std::vector<float> logits(LoadedModel& m) {
    const test::Documents docs({33, 1, 20});
    const test::CpuContext ctx;
    const Buffer rows(DType::i32, {54});
    std::iota(rows.view().as<int32_t>(), rows.view().as<int32_t>() + 54, 0);
    Tape tape(ctx, *m.params, Tape::Mode::infer);
    const Var v = m.lm->logits(tape, docs.batch(), rows.view(), nullptr);
    const float* p = v.value.as<float>();
    return {p, p + v.value.numel()};
  }

  test::Folder folder_;
  const Tokenizer tokenizer_{BpeTraining{}, "gpt2"};
};

class RoundTrip : public ExportTest, public ::testing::WithParamInterface<int> {};
const std::vector<std::pair<const char*, LmConfig (*)()>> kModels{
    {"dense", [] { return plain(); }}, {"moe", moe}, {"rotated", rotated}, {"all_kda", all_kda}};

TEST_P(RoundTrip, OursToTheirsToOurs) {
  const auto& [name, model] = kModels[size_t(GetParam())];
  to(run_of(name, model()), out("hf"), {.dtype = DType::f32});
  import_folder(out("hf"), out("back"));
  LoadedModel a = load_model(out(name)), b = load_model(out("back"));
  ASSERT_EQ(a.params->size(), b.params->size());
  for (int i = 0; i < a.params->size(); ++i) {
    const Tensor x = a.params->shards()[size_t(i)].master, y = b.params->shards()[size_t(i)].master;
    EXPECT_EQ(a.params->spec({i}).name, b.params->spec({i}).name);
    ASSERT_EQ(x.bytes(), y.bytes());
    EXPECT_EQ(std::memcmp(x.data, y.data, size_t(x.bytes())), 0) << a.params->spec({i}).name;
  }
  EXPECT_EQ(logits(a), logits(b));
}
// Rounded once; what was rounded stays what it is. The files are small ones of 4 KiB.
TEST_P(RoundTrip, TheirsToOursToTheirs) {
  const auto& [name, model] = kModels[size_t(GetParam())];
  const ExportOptions options{.max_shard_bytes = 4096};
  to(run_of(name, model()), out("hf"), options);
  import_folder(out("hf"), out("back"));
  to(out("back"), out("hf2"), options);
  int compared = 0;
  for (const std::string& file : names_in(out("hf"))) {
    if (file == "config.json") continue;  // the context is the folder's now
    EXPECT_EQ(test::file_bytes(out("hf/" + file)), test::file_bytes(out("hf2/" + file))) << file;
    compared += file.ends_with(".safetensors");
  }
  EXPECT_GT(compared, 3);
  EXPECT_EQ(test::file_bytes(out("hf/config.json")), test::file_bytes(out("hf2/config.json")));
}
INSTANTIATE_TEST_SUITE_P(Models, RoundTrip, ::testing::Range(0, 4),
                         [](const auto& p) { return kModels[size_t(p.param)].first; });

// The selector's rows add one number and zeros, so that even the order of the sum is no matter.
TEST_F(ExportTest, AScalarGateIsAKdaLayer) {
  const std::string run = run_of("gdn", plain("gdn"));
  to(run, out("hf"), {.dtype = DType::f32});
  import_folder(out("hf"), out("back"));
  LoadedModel ours = load_model(run), theirs = load_model(out("back"));
  EXPECT_EQ(theirs.config.model.pattern()[0], "kda");
  const std::vector<float> a = logits(ours), b = logits(theirs);
  double worst = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(double(a[i]) - b[i]));
    largest = std::max(largest, std::abs(double(a[i])));
  }
  EXPECT_LT(worst, 1e-5 * largest);  // f32, two chunk loops in another order
}

TEST_F(ExportTest, TiedEmbeddingsAreWrittenTwice) {
  LmConfig tied = plain();
  tied.tie_word_embeddings = true;
  to(run_of("tied", tied), out("hf"));
  const SafetensorsReader file(out("hf/model.safetensors"));
  ASSERT_TRUE(file.find("lm_head.weight"));
  const int64_t n = file.find("lm_head.weight")->numel();
  std::vector<uint16_t> a(static_cast<size_t>(n)), b(a);
  file.read_slice("lm_head.weight", 0, make_tensor(a.data(), DType::bf16, Device::cpu, {n}));
  file.read_slice("model.embed_tokens.weight", 0,
                  make_tensor(b.data(), DType::bf16, Device::cpu, {n}));
  EXPECT_EQ(a, b);
}

TEST_F(ExportTest, RefusesBeforeItWrites) {
  LmConfig c = moe();
  c.kda.gate_lower_bound = -5.0;
  c.moe.num_experts_per_token = 1;
  c.mla.use_output_gate = true;
  expect_contains(error_of([&] { to(run_of("a", c), out("hf")); }),
                  {"transformers: model.kda.gate_lower_bound is -5, expected null",
                   "model.mla.use_output_gate is true", "model.moe.num_experts_per_token is 1"});
  EXPECT_FALSE(exists(out("hf")) || exists(out("hf.partial")));
  expect_contains(error_of([&] { to(run_of("b", plain()), out("hf"), {.engines = {"vllm"}}); }),
                  {"vllm: model.mla.kv_lora_rank is 12, expected 572"});
  expect_contains(error_of([&] { to(run_of("c", test::tiny_config("mamba2")), out("hf")); }),
                  {"a mamba2 layer", "expected kda, gdn or mla"});
  LmConfig no_positions = plain();
  no_positions.ratio = "0:1";
  expect_contains(error_of([&] { to(run_of("d", no_positions), out("hf")); }),
                  {"model.mla.use_nope false"});
  make_folder(out("hf"));
  expect_contains(error_of([&] { to(run_of("e", plain()), out("hf")); }), {"is there already"});
}

TEST_F(ExportTest, ImportNamesEveryProblem) {
  to(run_of("a", moe()), out("hf"));
  const std::string config = read_text(out("hf/config.json"));
  auto with = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    replace_text(out("hf/config.json"), text.replace(at, from.size(), to));
    return error_of([&] { import_folder(out("hf"), out("back")); });
  };
  expect_contains(with("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""),
                  {"hidden_act: expected \"silu\", got \"gelu\""});
  expect_contains(with("\"num_experts\": 6", "\"num_experts\": 7"),
                  {"block_sparse_moe.experts.6.w1.weight: missing",
                   "gate.weight: is bf16 [6, 24], expected bf16 [7, 24]"});
  expect_contains(with("\"num_expert_group\": 1", "\"num_expert_group\": 2"),
                  {"num_expert_group: expected 1, got 2"});
  expect_contains(with("\"mla_use_nope\": true", "\"mla_use_nope\": false"),
                  {"mla_use_nope: expected true, got false"});
  expect_contains(with("\"num_shared_experts\": 1", "\"num_shared_experts\": 0"),
                  {"shared_experts.down_proj.weight: the model has no such parameter"});
  expect_contains(with("\"kda_layers\"", "\"kda_levels\""), {"kda_layers: missing"});
  EXPECT_FALSE(exists(out("back")));
}

}  // namespace
}  // namespace sluice
