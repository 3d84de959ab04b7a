// trainer/export/import.cpp -- config, names, weights, in this order; then one checkpoint.
#include "trainer/export/import.h"

#include "configs/schema.h"
#include "data/tokenizer/tokenizer.h"
#include "model/autograd/plain_store.h"
#include "model/export/engines/hf_reader.h"
#include "model/lm/lm.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"
#include "trainer/loop/model_file.h"

namespace sluice {

namespace {

// What our one tensor or an entry of it has no place for must be what we would compute without it.
void take(const HfWeightFiles& files, const EngineTensor& t, PlainStore& params) {
  std::vector<float> values(static_cast<size_t>(t.numel()));
  files.read(t, values.data());
  SLUICE_CHECK(t.content == Content::copied || t.content == Content::padded, t.name,
               ": cannot be imported");
  for (int64_t i = t.count; i < t.numel(); ++i)
    SLUICE_CHECK(values[size_t(i)] == 0, t.name, ": element ", i, " is ", values[size_t(i)],
                 ", expected 0: our layer has no such bias");
  float* to = params.shards()[size_t(t.id.index)].master.as<float>() + t.first_element;
  std::copy_n(values.begin(), t.count, to);
}

std::string model_section(const Config& config) {
  std::string lines = config::print(config);
  const size_t begin = lines.find("\nmodel:") + 1, end = lines.find("\ndata:");
  return lines.substr(begin, end - begin + 1);
}

}  // namespace

Imported import_folder(const std::string& folder, const std::string& out) {
  SLUICE_CHECK(!exists(out), out, " is there already");
  Config config;
  const HfModel source = read_hf_config(folder);
  config.model = source.model;
  config.run.dir = out;
  if (source.context_tokens > 0) config.data.seq_len_tokens = source.context_tokens;
  HfWeightFiles files(folder);
  PlainStore params(DType::f32);
  const Lm lm(config.model, params);
  const std::vector<EngineTensor> tensors = engine_tensors(params, source.naming);
  files.check(tensors);
  params.allocate();
  for (const EngineTensor& t : tensors) take(files, t, params);

  Imported result;
  make_folder(out);
  const std::string tokenizer = folder + "/tokenizer.json";
  if (exists(tokenizer)) {
    Tokenizer::load(tokenizer).save(out + "/tokenizer.json");
    config.data.tokenizer = out + "/tokenizer.json";
    result.tokenizer = true;
  }
  CheckpointMeta meta;
  meta.config_yaml = config::print(config);
  result.checkpoint = save_checkpoint(out, meta, named_weights(params), {}, {}).saved.folder;
  result.model = model_section(config);
  result.parameters = params.numel();
  return result;
}

}  // namespace sluice
