// trainer/export/export.cpp -- checks, weights, then the small files, in a folder that is renamed
// at the end.
#include "trainer/export/export.h"

#include <algorithm>

#include "configs/schema.h"
#include "data/tokenizer/tokenizer.h"
#include "model/autograd/plain_store.h"
#include "model/export/engines/hf_config.h"
#include "model/export/engines/hf_folder.h"
#include "model/lm/lm.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/tensors.h"
#include "trainer/export/steps.h"
#include "trainer/loop/config.h"

namespace sluice {

TextFacts text_facts(const Config& config, int64_t context_tokens,
                     std::optional<Tokenizer>& tokenizer) {
  TextFacts text;
  text.context_tokens = config.data.seq_len_tokens;
  for (const StageConfig& s : config.train.stages)
    if (s.seq_len_tokens) text.context_tokens = std::max(text.context_tokens, *s.seq_len_tokens);
  if (context_tokens > 0) text.context_tokens = context_tokens;
  if (config.data.task) return text;
  tokenizer = Tokenizer::load(config.data.tokenizer);
  text.end_of_text = tokenizer->end_of_text();
  for (const AddedToken& a : tokenizer->added())
    if (a.id == text.end_of_text) text.end_of_text_text = a.content;
  return text;
}

void check_engines(const LmConfig& model, const std::vector<std::string>& asked, Exported& result) {
  std::string refusals;
  for (const char* engine : {"transformers", "vllm", "sglang", "llama.cpp", "fla"}) {
    const bool needed = std::find(asked.begin(), asked.end(), engine) != asked.end();
    const std::vector<std::string> found = obstacles(model, engine);
    for (const std::string& why : found) {
      if (needed)
        refusals += cat("\n  ", engine, ": ", why);
      else
        result.notes.push_back(cat(engine, " cannot load it: ", why));
    }
    if (found.empty())
      for (const std::string& r : remarks(model, engine)) result.notes.push_back(r);
  }
  SLUICE_CHECK(refusals.empty(), "this model cannot be exported:", refusals);
}

void untie_head(const LmConfig& model, std::vector<EngineTensor>& tensors) {
  if (!model.tie_word_embeddings || architecture_of(model) == Architecture::fla_kda) return;
  EngineTensor head = tensors.front();
  SLUICE_CHECK(head.name == "model.embed_tokens.weight", "first tensor is ", head.name);
  head.name = "lm_head.weight";
  tensors.push_back(head);
}

namespace {

void write_small_files(const std::string& folder, const Config& config, Architecture a,
                       const TextFacts& text, const std::optional<Tokenizer>& tokenizer,
                       bool bf16) {
  replace_text(folder + "/config.json", hf_config(config.model, a, text, bf16));
  replace_text(folder + "/generation_config.json", hf_generation_config(text));
  if (!tokenizer) return;
  tokenizer->save(folder + "/tokenizer.json");
  replace_text(folder + "/tokenizer_config.json", hf_tokenizer_config(text));
}

}  // namespace

Exported export_checkpoint(const std::string& path, const std::string& out, const ExportOptions& o,
                           const std::function<void(int64_t, int64_t)>& progress) {
  SLUICE_CHECK(!exists(out), out, " is there already");
  Exported result;
  const CheckpointRef ref = find_checkpoint(path, &result.skipped);
  const Config config =
      config::load_string<Config>(load_meta(ref).config_yaml, ref.folder + "/config.yaml");
  const Architecture a = architecture_of(config.model);
  std::vector<std::string> engines = o.engines;
  if (engines.empty()) engines.push_back(a == Architecture::fla_kda ? "fla" : "transformers");
  check_engines(config.model, engines, result);
  std::optional<Tokenizer> tokenizer;
  const TextFacts text = text_facts(config, o.context_tokens, tokenizer);

  PlainStore params(DType::f32);  // for names and shapes alone
  const Lm lm(config.model, params);
  const Naming naming = a == Architecture::fla_kda       ? Naming::fla
                        : a == Architecture::deepseek_v3 ? Naming::deepseek
                                                         : Naming::moonshot;
  std::vector<EngineTensor> tensors = engine_tensors(params, naming);
  untie_head(config.model, tensors);
  const CheckpointTensors weights(ref, Part::weights);
  const std::string partial = out + ".partial";
  remove_tree(partial);
  make_folder(partial);
  write_hf_weights(partial, weights, params, tensors,
                   {.dtype = o.dtype, .max_shard_bytes = o.max_shard_bytes}, progress);
  write_small_files(partial, config, a, text, tokenizer, o.dtype == DType::bf16);
  sync_folder(partial);
  rename_path(partial, out);
  result.checkpoint = ref.folder;
  result.architecture = name(a);
  result.tensors = int64_t(tensors.size());
  for (const EngineTensor& t : tensors)
    result.bytes += t.numel() * size_of(dtype_in_folder(t, o.dtype));
  return result;
}

}  // namespace sluice
