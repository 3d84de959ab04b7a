// tests/trainer/export_gguf_test.cpp -- the layouts, keys and vocabularies of GGUF files, against
// the Hugging Face folder of the same checkpoint. That llama.cpp computes the same from them is
// what tests/peers/llama_peer.py shows.
#include "trainer/export/export_gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "configs/schema.h"
#include "data/tokenizer/tokenizer.h"
#include "model/export/gguf.h"
#include "model/export/safetensors.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"
#include "trainer/loop/model_file.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_contains;

LmConfig moe() {
  LmConfig c = test::tiny_moe_config();
  c.kda.num_value_heads = c.kda.num_heads;
  c.mla.v_head_dim = 6;  // so that heads of keys and values are not alike
  return c;
}

class ExportGguf : public ::testing::Test {
 protected:
  // A checkpoint of random weights. Returns its run folder.
  std::string run_of(const std::string& name, const LmConfig& model) {
    Config config;
    config.run.name = "tiny";
    config.model = model;
    config.model.vocab_size = tokenizer_.vocab_size() + 3;
    config.data.tokenizer = folder_ / "tokenizer.json";
    config.data.seq_len_tokens = 77;
    tokenizer_.save(config.data.tokenizer);
    PlainStore params(DType::f32);
    const Lm lm(config.model, params);
    params.allocate();
    initialize(params, 7);
    test::set_unequal_loads(params);
    CheckpointMeta meta;
    meta.step = 3;
    meta.config_yaml = config::print(config);
    save_checkpoint(folder_ / name, meta, named_weights(params), {}, {});
    return folder_ / name;
  }
  std::string out(const std::string& name) const { return folder_ / name; }
  static Exported to(const std::string& run, const std::string& out, GgufOptions o = {}) {
    int64_t last = 0, all = 0;
    Exported e = export_gguf(run, out, o, [&](int64_t done, int64_t of) {
      EXPECT_GT(done, last);
      last = done, all = of;
    });
    EXPECT_EQ(last, all);
    EXPECT_EQ(all, e.bytes);
    return e;
  }

  test::Folder folder_;
  const Tokenizer tokenizer_{train_bpe({"the theory of the thing", "then the other"}, "gpt2", 12),
                             "gpt2"};
};

// Both files, read whole.
struct Pair {
  Pair(const std::string& gguf, const std::string& hf) : file(gguf), folder(hf) {}

  std::vector<float> of(const std::string& name, std::vector<int64_t> shape) {
    for (const GgufTensor& t : file.tensors()) {
      if (t.name != name) continue;
      EXPECT_EQ(t.shape, shape) << name;
      seen.insert(name);
      std::vector<float> x(size_t(t.numel()));
      file.read(t, 0, t.numel(), x.data());
      return x;
    }
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  std::vector<float> theirs(const std::string& name) const {
    const SafetensorsEntry* e = folder.find(name);
    if (!e) ADD_FAILURE() << "no tensor " << name;
    if (!e) return {};
    std::vector<float> x(size_t(e->numel()));
    folder.read_slice(name, 0, make_tensor(x.data(), DType::f32, Device::cpu, {e->numel()}));
    return x;
  }
  void same(const std::string& name, std::vector<int64_t> shape, const std::string& theirs_name) {
    EXPECT_EQ(of(name, std::move(shape)), theirs(theirs_name)) << name;
  }

  GgufReader file;
  SafetensorsReader folder;
  std::set<std::string> seen;
};

void check_kda_layer(Pair& p, const std::string& g, const std::string& m, int64_t D, int64_t H,
                     int64_t K) {
  p.same(g + "attn_q.weight", {H * K, D}, m + "q_proj.weight");
  p.same(g + "attn_k.weight", {H * K, D}, m + "k_proj.weight");
  p.same(g + "attn_v.weight", {H * K, D}, m + "v_proj.weight");
  for (const std::string x : {"q", "k", "v"})
    p.same(g + "ssm_conv1d_" + x + ".weight", {1, H * K, 1, 4}, m + x + "_conv1d.weight");
  p.same(g + "ssm_f_a.weight", {K, D}, m + "f_a_proj.weight");
  p.same(g + "ssm_f_b.weight", {H * K, K}, m + "f_b_proj.weight");
  p.same(g + "ssm_g_a.weight", {K, D}, m + "g_a_proj.weight");
  p.same(g + "ssm_g_b.weight", {H * K, K}, m + "g_b_proj.weight");
  p.same(g + "ssm_beta.weight", {H, D}, m + "b_proj.weight");
  p.same(g + "ssm_dt.bias", {H * K}, m + "dt_bias");
  p.same(g + "ssm_norm.weight", {K}, m + "o_norm.weight");
  p.same(g + "attn_output.weight", {D, H * K}, m + "o_proj.weight");
  const std::vector<float> a = p.of(g + "ssm_a", {1, 1, H, 1}), log = p.theirs(m + "A_log");
  for (size_t h = 0; h < a.size(); ++h) EXPECT_FLOAT_EQ(a[h], -std::exp(log[h]));
}

void check_mla_layer(Pair& p, const std::string& g, const std::string& m, const LmConfig& c) {
  const int64_t D = c.hidden_size, H = c.mla.num_attention_heads, R = c.mla.kv_lora_rank,
                N = c.mla.qk_nope_head_dim, P = c.mla.qk_rope_head_dim, V = c.mla.v_head_dim;
  p.same(g + "attn_q.weight", {H * (N + P), D}, m + "q_proj.weight");
  p.same(g + "attn_kv_a_mqa.weight", {R + P, D}, m + "kv_a_proj_with_mqa.weight");
  p.same(g + "attn_kv_a_norm.weight", {R}, m + "kv_a_layernorm.weight");
  p.same(g + "attn_output.weight", {D, H * V}, m + "o_proj.weight");
  const std::vector<float> k = p.of(g + "attn_k_b.weight", {H, R, N}),
                           v = p.of(g + "attn_v_b.weight", {H, V, R}),
                           kv = p.theirs(m + "kv_b_proj.weight");  // [H (N + V), R]
  for (int64_t h = 0; h < H; ++h)
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t i = 0; i < N; ++i)
        EXPECT_EQ(k[size_t((h * R + r) * N + i)], kv[size_t((h * (N + V) + i) * R + r)]);
      for (int64_t i = 0; i < V; ++i)
        EXPECT_EQ(v[size_t((h * V + i) * R + r)], kv[size_t((h * (N + V) + N + i) * R + r)]);
    }
}

void check_experts(Pair& p, const std::string& g, const std::string& m, int64_t D, int64_t E,
                   int64_t F) {
  p.same(g + "ffn_gate_inp.weight", {E, D}, m + "gate.weight");
  p.same(g + "exp_probs_b.bias", {E}, m + "gate.e_score_correction_bias");
  p.same(g + "ffn_gate_shexp.weight", {F, D}, m + "shared_experts.gate_proj.weight");
  p.same(g + "ffn_up_shexp.weight", {F, D}, m + "shared_experts.up_proj.weight");
  p.same(g + "ffn_down_shexp.weight", {D, F}, m + "shared_experts.down_proj.weight");
  const std::pair<const char*, const char*> stacks[] = {
      {"ffn_gate_exps", "w1"}, {"ffn_up_exps", "w3"}, {"ffn_down_exps", "w2"}};
  for (const auto& [stack, w] : stacks) {
    const bool down = std::string(w) == "w2";
    const std::vector<float> all = p.of(g + stack + ".weight", {E, down ? D : F, down ? F : D});
    for (int64_t e = 0; e < E; ++e) {
      const std::vector<float> one = p.theirs(cat(m, "experts.", e, ".", w, ".weight"));
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + e * D * F)) << stack << e;
    }
  }
}

TEST_F(ExportGguf, EveryTensorIsWhereLlamaCppReadsIt) {
  const LmConfig c = moe();
  const std::string run = run_of("run", c);
  const Exported e = to(run, out("x.gguf"), {.type = GgufType::f32});
  EXPECT_EQ(e.architecture, "kimi-linear");
  export_checkpoint(run, out("hf"), {.dtype = DType::f32}, [](int64_t, int64_t) {});
  Pair p(out("x.gguf"), out("hf/model.safetensors"));
  const int64_t D = c.hidden_size, X = tokenizer_.vocab_size() + 3;
  p.same("token_embd.weight", {X, D}, "model.embed_tokens.weight");
  p.same("output.weight", {X, D}, "lm_head.weight");
  p.same("output_norm.weight", {D}, "model.norm.weight");
  for (int i = 0; i < 4; ++i) {
    const std::string g = cat("blk.", i, "."), m = cat("model.layers.", i, ".");
    p.same(g + "attn_norm.weight", {D}, m + "input_layernorm.weight");
    p.same(g + "ffn_norm.weight", {D}, m + "post_attention_layernorm.weight");
    if (i == 3)
      check_mla_layer(p, g, m + "self_attn.", c);
    else
      check_kda_layer(p, g, m + "self_attn.", D, 2, 8);
    if (i > 0) {
      check_experts(p, g, m + "block_sparse_moe.", D, 6, 16);
      continue;
    }
    p.same(g + "ffn_gate.weight", {32, D}, m + "mlp.gate_proj.weight");
    p.same(g + "ffn_up.weight", {32, D}, m + "mlp.up_proj.weight");
    p.same(g + "ffn_down.weight", {D, 32}, m + "mlp.down_proj.weight");
  }
  EXPECT_EQ(p.seen.size(), p.file.tensors().size());
}

TEST_F(ExportGguf, MatricesAreRoundedAndTheRestIsNot) {
  to(run_of("run", moe()), out("x.gguf"), {.type = GgufType::f16});
  const GgufReader file(out("x.gguf"));
  for (const GgufTensor& t : file.tensors()) {
    const bool stays = t.shape.size() == 1 || t.name.find("norm") != std::string::npos ||
                       t.name.find("conv1d") != std::string::npos || t.name.ends_with("ssm_a") ||
                       t.name.ends_with("ffn_gate_inp.weight");
    EXPECT_EQ(t.type, stays ? GgufType::f32 : GgufType::f16) << t.name;
  }
}

TEST_F(ExportGguf, Keys) {
  to(run_of("run", moe()), out("x.gguf"));
  const GgufReader file(out("x.gguf"));
  const auto value = [&](const std::string& key) {
    const GgufValue* v = file.find(key);
    return v ? to_string(*v) : key + " is missing";
  };
  const std::pair<const char*, const char*> expected[] = {
      {"general.architecture", "\"kimi-linear\""},
      {"general.name", "\"tiny\""},
      {"general.file_type", "32"},
      {"kimi-linear.block_count", "4"},
      {"kimi-linear.context_length", "77"},
      {"kimi-linear.embedding_length", "24"},
      {"kimi-linear.feed_forward_length", "32"},
      {"kimi-linear.attention.head_count", "2"},
      {"kimi-linear.attention.head_count_kv", "[0, 0, 0, 1] (4)"},
      {"kimi-linear.attention.kv_lora_rank", "12"},
      {"kimi-linear.attention.key_length", "16"},
      {"kimi-linear.attention.key_length_mla", "12"},
      {"kimi-linear.attention.value_length_mla", "6"},
      {"kimi-linear.attention.layer_norm_rms_epsilon", "1e-05"},
      {"kimi-linear.rope.dimension_count", "4"},
      {"kimi-linear.ssm.conv_kernel", "4"},
      {"kimi-linear.kda.head_dim", "8"},
      {"kimi-linear.leading_dense_block_count", "1"},
      {"kimi-linear.expert_count", "6"},
      {"kimi-linear.expert_used_count", "2"},
      {"kimi-linear.expert_shared_count", "1"},
      {"kimi-linear.expert_feed_forward_length", "16"},
      {"kimi-linear.expert_gating_func", "2"},
      {"sluice.run", "\"tiny\""},
      {"sluice.step", "3"}};
  for (const auto& [key, text] : expected) EXPECT_EQ(value(key), text) << key;
  EXPECT_EQ(file.find("kimi-linear.attention.q_lora_rank"), nullptr);
}

TEST_F(ExportGguf, TheVocabulary) {
  to(run_of("run", moe()), out("x.gguf"));
  const GgufReader file(out("x.gguf"));
  const auto& tokens =
      std::get<std::vector<std::string>>(file.find("tokenizer.ggml.tokens")->values);
  const auto& kinds =
      std::get<std::vector<int64_t>>(file.find("tokenizer.ggml.token_type")->values);
  const auto& merges =
      std::get<std::vector<std::string>>(file.find("tokenizer.ggml.merges")->values);
  const size_t n = size_t(tokenizer_.vocab_size());
  ASSERT_EQ(tokens.size(), n + 3);
  EXPECT_EQ(tokens[size_t('a')], "a");
  EXPECT_EQ(tokens[size_t(' ')], "\xC4\xA0");  // U+0120
  EXPECT_EQ(tokens[n - 1], "<|endoftext|>");
  EXPECT_EQ(tokens[n + 2], cat("[PAD", n + 2, "]"));
  EXPECT_EQ(kinds[0], 1);
  EXPECT_EQ(kinds[n - 1], 3);
  EXPECT_EQ(kinds[n], 5);
  ASSERT_EQ(merges.size(), tokenizer_.merges().by_rank().size());
  ASSERT_GT(merges.size(), 3u);
  for (size_t i = 0; i < merges.size(); ++i) {
    std::string made = merges[i];
    made.erase(made.find(' '), 1);
    EXPECT_EQ(made, tokens[256 + i]);
  }
  EXPECT_EQ(to_string(*file.find("tokenizer.ggml.eos_token_id")), std::to_string(n - 1));
  EXPECT_EQ(to_string(*file.find("tokenizer.ggml.add_bos_token")), "true");
}

TEST_F(ExportGguf, TiedEmbeddingsAreWrittenTwice) {
  LmConfig tied = moe();
  tied.tie_word_embeddings = true;
  const std::string run = run_of("run", tied);
  to(run, out("x.gguf"), {.type = GgufType::f32});
  export_checkpoint(run, out("hf"), {.dtype = DType::f32}, [](int64_t, int64_t) {});
  Pair p(out("x.gguf"), out("hf/model.safetensors"));
  p.same("output.weight", {tokenizer_.vocab_size() + 3, 24}, "model.embed_tokens.weight");
}

TEST_F(ExportGguf, RefusesBeforeItWrites) {
  LmConfig c = moe();
  c.kda.gate_lower_bound = -5.0;
  c.moe.moe_renormalize = false;
  c.mla.use_output_gate = true;
  c.kda.num_heads = c.kda.num_value_heads = 3;
  expect_contains(error_of([&] { to(run_of("a", c), out("x.gguf")); }),
                  {"llama.cpp: model.kda.gate_lower_bound is -5", "model.mla.use_output_gate",
                   "model.moe.moe_renormalize is false", "model.kda.num_heads is 3, expected"});
  LmConfig kda_alone = test::tiny_config();
  kda_alone.ratio = "1:0";
  expect_contains(error_of([&] { to(run_of("b", kda_alone), out("x.gguf")); }),
                  {"llama.cpp has not"});
  const std::string run = run_of("c", moe());
  expect_contains(error_of([&] { to(run, out("x.gguf"), {.type = GgufType::q8_0}); }),
                  {"cannot be written as q8_0", "token_embd.weight has rows of 24",
                   "blk.3.attn_k_b.weight has rows of 8"});
  EXPECT_FALSE(exists(out("x.gguf")) || exists(out("x.gguf.partial")));
  replace_text(out("x.gguf"), "");
  expect_contains(error_of([&] { to(run, out("x.gguf")); }), {"is there already"});
}

}  // namespace
}  // namespace sluice
