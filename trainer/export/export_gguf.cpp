// trainer/export/export_gguf.cpp -- checks, keys, then the weights, tensor by tensor.
#include "trainer/export/export_gguf.h"

#include "configs/schema.h"
#include "model/autograd/plain_store.h"
#include "model/export/engines/gguf_model.h"
#include "model/lm/lm.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/tensors.h"
#include "trainer/export/gguf_vocabulary.h"
#include "trainer/export/steps.h"

namespace sluice {
namespace {

// Where the weights come from: keys of our own, which llama.cpp shows and ignores.
void add_origin(const Config& config, int64_t step, GgufKeys& keys) {
  keys.emplace_back("sluice.run", GgufValue::text(config.run.name));
  keys.emplace_back("sluice.step", GgufValue::u32(uint64_t(step)));
  keys.emplace_back("sluice.config", GgufValue::text(config::print(config)));
}

}  // namespace

Exported export_gguf(const std::string& path, const std::string& out, const GgufOptions& o,
                     const std::function<void(int64_t, int64_t)>& progress) {
  SLUICE_CHECK(!exists(out), out, " is there already");
  Exported result;
  const CheckpointRef ref = find_checkpoint(path, &result.skipped);
  const Config config =
      config::load_string<Config>(load_meta(ref).config_yaml, ref.folder + "/config.yaml");
  const Architecture a = architecture_of(config.model);
  check_engines(config.model, {"llama.cpp"}, result);
  std::optional<Tokenizer> tokenizer;
  const TextFacts text = text_facts(config, o.context_tokens, tokenizer);
  SLUICE_CHECK(tokenizer,
               "the model was trained on a task and has no tokenizer: llama.cpp wants one");

  PlainStore params(DType::f32);  // for names and shapes alone
  const Lm lm(config.model, params);
  std::vector<EngineTensor> tensors =
      engine_tensors(params, a == Architecture::deepseek_v3 ? Naming::deepseek : Naming::moonshot);
  untie_head(config.model, tensors);
  const std::vector<GgufSource> sources = gguf_tensors(config.model, tensors, o.type);
  GgufKeys keys = gguf_model_keys(config.model, a, text, o.type, config.run.name);
  for (auto& key : gguf_vocabulary(*tokenizer, *config.model.vocab_size))
    keys.push_back(std::move(key));
  add_origin(config, ref.step, keys);
  for (const std::string& end : taken_for_ends(*tokenizer))
    result.notes.push_back("llama.cpp takes the ordinary token " + end + " for the end of a text");

  const CheckpointTensors weights(ref, Part::weights);
  std::vector<GgufTensor> declared;
  for (const GgufSource& s : sources) declared.push_back(s.tensor);
  make_folder(parent_of(out));
  GgufWriter writer(out, keys, declared);
  write_gguf_tensors(writer, weights, params, sources, progress);
  writer.finish();
  result.checkpoint = ref.folder;
  result.architecture = a == Architecture::kimi_linear ? "kimi-linear" : "deepseek2";
  result.tensors = int64_t(declared.size());
  for (const GgufTensor& t : declared) result.bytes += t.bytes();
  return result;
}

}  // namespace sluice
