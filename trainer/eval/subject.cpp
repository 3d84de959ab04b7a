// trainer/eval/subject.cpp -- opening, and files of results.
#include "trainer/eval/subject.h"

#include <algorithm>

#include "model/export/posix_file.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/loop/exit_code.h"
#include "trainer/loop/stages.h"

namespace sluice {

static std::string eval_folder(const std::string& path, const CheckpointRef& checkpoint) {
  const NamedPath named = name_path(path);
  if (!named.one) return named.run_dir + "/eval";
  const std::string root = parent_of(checkpoint.folder), run = parent_of(root);
  if (root != checkpoints_folder(run))
    throw ExitError(ExitCode::config,
                    cat(path, " is in no run's folder: say where results go, --out FOLDER"));
  return run + "/eval";
}

Subject open_subject(const std::string& path, const std::string& out) {
  Subject s;
  s.model = with_code(ExitCode::checkpoint, [&] { return load_model(path); });
  const int64_t last = std::max<int64_t>(s.model.checkpoint.step - 1, 0);
  for (const DataPart& p : data_parts(s.model.config))
    if (p.begin <= last) s.data = p.data;
  s.folder = out.empty() ? eval_folder(path, s.model.checkpoint) : out;
  return s;
}

void check_tokenizer(const Tokenizer& tokenizer, const ShardInfo& shard, const std::string& path) {
  if (shard.tokenizer != tokenizer.fingerprint())
    throw Error(cat(path, " was encoded with tokenizer ", shard.tokenizer, ", the run's is ",
                    tokenizer.fingerprint()));
}

Tokenizer load_tokenizer(const Subject& s) {
  if (s.data.task)
    throw Error(cat("the model was trained on a task (", s.data.task->kind,
                    ") and reads no text: `sluice eval RUN` has its accuracy"));
  Tokenizer tokenizer = Tokenizer::load(s.data.tokenizer);
  for (const DataSource& source : s.data.train)
    if (exists(source.path))
      check_tokenizer(tokenizer, ShardReader(source.path).info(), source.path);
  const int64_t vocabulary = *s.model.config.model.vocab_size;
  if (tokenizer.vocab_size() > vocabulary)
    throw Error(
        cat(s.data.tokenizer, " has ", tokenizer.vocab_size(), " tokens, the model ", vocabulary));
  return tokenizer;
}

std::string save_lines(const Subject& s, const std::string& name, const std::string& text) {
  make_folder(s.folder);
  const std::string path = s.folder + "/" + name;
  replace_text(path, text);
  return path;
}

std::string save_result(const Subject& s, const std::string& name,
                        const nlohmann::ordered_json& result) {
  nlohmann::ordered_json all{{"kind", result.at("kind")},
                             {"checkpoint", s.model.checkpoint.folder},
                             {"checkpoint_step", s.model.checkpoint.step}};
  all.update(result);
  return save_lines(s, name + ".json", all.dump(2) + "\n");
}

}  // namespace sluice
