// tests/trainer/export_memory_test.cpp -- folders and GGUF files of large models need no memory
// that grows with their tensors. The weights are made up as they are read, so that nothing but the
// export takes any.
//
//   SLUICE_EXPORT_LAYERS=3 trainer_export_memory_test     shapes of the 48B model, 9 GB of files
//   each
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>

#include "model/autograd/plain_store.h"
#include "model/export/engines/gguf_model.h"
#include "model/export/engines/hf_folder.h"
#include "model/lm/lm.h"
#include "tests/support/folder.h"

namespace sluice {
namespace {

float value(int64_t element) {
  return float(element % 255 - 127) / 1024;  // a bf16
}

class MadeUp final : public TensorSource {
 public:
  explicit MadeUp(const ParamStore& params) {
    for (int i = 0; i < params.size(); ++i)
      entries_.push_back({.name = params.spec({i}).name, .shape = params.spec({i}).shape});
  }
  const std::string& path() const override { return path_; }
  const std::vector<SafetensorsEntry>& entries() const override { return entries_; }
  const SafetensorsEntry* find(const std::string& name) const override {
    for (const SafetensorsEntry& e : entries_)
      if (e.name == name) return &e;
    return nullptr;
  }
  void read_slice(const std::string&, int64_t first, const Tensor& out) const override {
    for (int64_t i = 0; i < out.numel(); ++i) out.as<float>()[i] = value(first + i);
  }

 private:
  std::string path_ = "made up";
  std::vector<SafetensorsEntry> entries_;
};

// Kimi Linear's 48B: 27 layers of these.
LmConfig large(int64_t layers) {
  LmConfig c;
  c.vocab_size = 163840;
  c.hidden_size = 2304;
  c.num_hidden_layers = layers;
  c.ratio = "1:1";
  c.intermediate_size = 9216;
  c.kda.num_heads = c.kda.num_value_heads = c.mla.num_attention_heads = 32;
  c.kda.head_dim = c.mla.qk_nope_head_dim = c.mla.v_head_dim = 128;
  c.mla.kv_lora_rank = 512;
  c.mla.qk_rope_head_dim = 64;
  c.ffn = "moe";
  c.moe = {.num_experts = 256, .num_experts_per_token = 8, .moe_intermediate_size = 1024};
  return c;
}
// One tensor of 126 MB in f32, and experts.
LmConfig quick() {
  LmConfig c = large(2);
  c.vocab_size = 40960;
  c.hidden_size = 768;
  c.intermediate_size = 256;
  c.kda.num_heads = c.kda.num_value_heads = c.mla.num_attention_heads = 2;
  c.moe.num_experts = 8;
  c.moe.moe_intermediate_size = 64;
  return c;
}

// The tensor is written in pieces: its last elements are those of the last.
void expect_end(const std::vector<float>& last, int64_t numel) {
  for (size_t i = 0; i < last.size(); ++i)
    ASSERT_EQ(last[i], value(numel - int64_t(last.size()) + int64_t(i))) << i;
}

int64_t peak_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) << 10;
}

template <class Write>
void measure(const char* what, const Write& write) {
  const int64_t before = peak_bytes();
  const auto start = std::chrono::steady_clock::now();
  int64_t bytes = 0;
  write([&](int64_t done, int64_t) { bytes = done; });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int64_t grown = peak_bytes() - before;
  std::printf("  %s: %.1f MiB written in %.1f s; peak %.1f MiB, of it for the export %.1f\n", what,
              double(bytes) / (1 << 20), seconds, double(peak_bytes()) / (1 << 20),
              double(grown) / (1 << 20));
  EXPECT_GT(bytes, int64_t(64) << 20);
  EXPECT_LT(grown, int64_t(64) << 20);
}

TEST(ExportMemory, DoesNotGrowWithTheModel) {
  const char* layers = std::getenv("SLUICE_EXPORT_LAYERS");
  const LmConfig model = layers ? large(std::atoi(layers)) : quick();
  PlainStore params(DType::f32);
  const Lm lm(model, params);
  const std::vector<EngineTensor> tensors = engine_tensors(params, Naming::moonshot);
  const MadeUp weights(params);
  test::Folder folder;
  measure("folder, bf16", [&](const auto& progress) {
    make_folder(folder / "hf");
    write_hf_weights(folder / "hf", weights, params, tensors, {}, progress);
  });
  std::vector<float> last(32);
  const std::string embedding = "model.embed_tokens.weight";
  for (const std::string& file : names_in(folder / "hf")) {
    if (!file.ends_with(".safetensors")) continue;
    const SafetensorsReader r(folder / ("hf/" + file));
    const SafetensorsEntry* e = r.find(embedding);
    if (!e) continue;
    std::vector<uint16_t> bits(last.size());
    r.read_slice(embedding, e->numel() - int64_t(bits.size()),
                 make_tensor(bits.data(), DType::bf16, Device::cpu, {int64_t(bits.size())}));
    decode(GgufType::bf16, bits.data(), int64_t(bits.size()), last.data());
    expect_end(last, e->numel());
  }
  remove_tree(folder / "hf");
  for (const GgufType type : {GgufType::bf16, GgufType::q8_0}) {
    measure(block_of(type).name, [&](const auto& progress) {
      const std::vector<GgufSource> sources = gguf_tensors(model, tensors, type);
      std::vector<GgufTensor> declared;
      for (const GgufSource& s : sources) declared.push_back(s.tensor);
      GgufWriter out(folder / "x.gguf",
                     gguf_model_keys(model, Architecture::kimi_linear, {}, type, "large"),
                     declared);
      write_gguf_tensors(out, weights, params, sources, progress);
      out.finish();
    });
    const GgufReader r(folder / "x.gguf");  // of whole size
    const GgufTensor& t = r.tensors()[0];
    ASSERT_EQ(t.name, "token_embd.weight");
    r.read(t, t.numel() - int64_t(last.size()), int64_t(last.size()), last.data());
    if (type == GgufType::bf16) expect_end(last, t.numel());
    remove_tree(folder / "x.gguf");
  }
}

}  // namespace
}  // namespace sluice
