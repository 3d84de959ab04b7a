// trainer/eval/subject.h -- what is evaluated: a checkpoint's model, the run's data and tokenizer,
// and where results go.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "trainer/loop/model_file.h"

namespace sluice {

struct Subject {
  LoadedModel model;
  DataConfig data;     // of the part of the run in which the checkpoint was made
  std::string folder;  // RUN/eval
};

// `path` as find_checkpoint() takes it; `out`: where results go, empty: RUN/eval. Errors have exit
// codes from here on.
Subject open_subject(const std::string& path, const std::string& out);

// The run's. Throws if it is not what the run's shards were encoded with, as far as they are there.
Tokenizer load_tokenizer(const Subject& s);
// Throws, naming both, if a shard was encoded with another tokenizer.
void check_tokenizer(const Tokenizer& tokenizer, const ShardInfo& shard, const std::string& path);

// FOLDER/NAME.json: `result` behind "kind", "checkpoint", "checkpoint_step". The old one or the
// new one at any moment. Returns the path.
std::string save_result(const Subject& s, const std::string& name,
                        const nlohmann::ordered_json& result);
// FOLDER/NAME: a file beside it.
std::string save_lines(const Subject& s, const std::string& name, const std::string& text);

}  // namespace sluice
