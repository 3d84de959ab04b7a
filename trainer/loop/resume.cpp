// trainer/loop/resume.cpp -- one table says what each key of the config may do.
#include "trainer/loop/resume.h"

#include <cstring>

#include "configs/schema.h"
#include "trainer/loop/stages.h"

namespace sluice {

// Every key of Config has its rule, itself or by its section; the longest one counts. A section
// stands here as a whole only where every key that it may ever have is of one kind.
// tests/trainer/resume_rules_test.cpp walks all keys.
static constexpr KeyRule kRules[] = {
    {"run.name", KeyKind::free, "a name"},
    {"run.dir", KeyKind::free, "the folder was moved"},
    {"run.seed", KeyKind::fatal, "other initial values and samples"},
    {"run.device", KeyKind::changes, "other kernels round differently"},
    {"run.init", KeyKind::free, "read only as long as a run has no checkpoint of its own"},
    {"run.threads", KeyKind::free, "the number of threads changes no bit"},
    {"run.determinism", KeyKind::changes, "a GPU adds in another order"},
    {"model", KeyKind::fatal, "another model, whose weights these are not"},
    {"data", KeyKind::changes, "what the steps to come read; of steps that are done: refused"},
    {"data.validation", KeyKind::free, "measured, not learnt from"},
    {"data.task.validation_examples", KeyKind::free, "measured, not learnt from"},
    {"data.task.validation_lengths_tokens", KeyKind::free, "measured, not learnt from"},
    {"train.objective", KeyKind::fatal, "another loss"},
    {"train.stages", KeyKind::changes, "steps to come; of steps that are done: refused"},
    {"train.steps", KeyKind::changes, "the schedule ends at another step"},
    {"train.batch_tokens", KeyKind::fatal, "step n reads other data"},
    {"train.micro_batch_tokens", KeyKind::changes, "sums over a batch are cut elsewhere"},
    {"train.recompute", KeyKind::changes, "the passes round differently"},
    {"train.validate_every_steps", KeyKind::free, "measured, not learnt from"},
    {"train.z_loss", KeyKind::changes, "another term of the loss"},
    {"train.nonfinite", KeyKind::changes, "other steps may be skipped"},
    {"train.spike", KeyKind::changes, "other steps may be skipped"},
    {"optim", KeyKind::changes, "other steps from here on"},
    {"optim.kind", KeyKind::fatal, "another optimizer, whose state this is not"},
    {"optim.state_dtype", KeyKind::fatal, "the saved states are of the other type"},
    {"optim.offload", KeyKind::free, "where the states lie changes no bit"},
    {"parallel", KeyKind::changes, "sums over ranks are cut elsewhere"},
    {"parallel.reshard_after_forward", KeyKind::free, "when weights travel changes no bit"},
    {"parallel.staged", KeyKind::free, "sums have one order, whatever carries them"},
    {"parallel.timeout_seconds", KeyKind::free, "when a run gives up"},
    {"checkpoint", KeyKind::free, "when and how many"},
    {"metrics", KeyKind::free, "what is shown"},
};

const KeyRule* rule_of(const std::string& key) {
  const KeyRule* best = nullptr;
  for (const KeyRule& r : kRules) {
    const size_t n = std::strlen(r.key);
    const bool covers =
        key.rfind(r.key, 0) == 0 && (key.size() == n || key[n] == '.' || key[n] == '[');
    if (covers && (!best || n > std::strlen(best->key))) best = &r;
  }
  return best;
}

ResumeReport check_resume(const CheckpointMeta& meta, const Config& config,
                          const std::map<std::string, std::string>& fingerprint) {
  ResumeReport report;
  const auto old = config::load_string<Config>(meta.config_yaml, "config.yaml of the checkpoint");
  for (const auto& [key, was, is] : config::diff(old, config)) {
    const KeyRule* rule = rule_of(key);
    SLUICE_CHECK(rule, key, " has no rule in trainer/loop/resume.cpp");
    const std::string what = cat(key, ": was ", was, ", is ", is);
    if (rule->kind == KeyKind::fatal) report.fatal.push_back(cat(what, ": ", rule->why));
    if (rule->kind == KeyKind::free)
      report.changed.push_back(cat(what, " (no effect on results: ", rule->why, ")"));
    if (rule->kind == KeyKind::changes) {
      report.changed.push_back(cat(what, " (CHANGES RESULTS: ", rule->why, ")"));
      report.bitwise.push_back(what);
    }
  }
  for (const std::string& line : changed_past(old, config, meta.step)) report.fatal.push_back(line);
  for (const auto& [key, is] : fingerprint) {
    const auto was = meta.fingerprint.find(key);
    if (was == meta.fingerprint.end() || was->second != is)
      report.bitwise.push_back(cat(
          key, ": was ", was == meta.fingerprint.end() ? "(unknown)" : was->second, ", is ", is));
  }
  return report;
}

}  // namespace sluice
