// trainer/loop/resume.h -- does a checkpoint continue this run, and with the same bits?
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"

namespace sluice {

// What it means that a key of the config is not what it was when the checkpoint was written.
enum class KeyKind : uint8_t {
  free,     // nothing for the results: noted
  changes,  // the run goes on, with other results: named loudly, and it is not bitwise
  fatal     // it is not this run any more: refused
};
struct KeyRule {
  const char* key;  // "optim.lr", or a section: "model"
  KeyKind kind;
  const char* why;
};
const KeyRule* rule_of(const std::string& key);  // null: somebody forgot it

struct ResumeReport {
  std::vector<std::string> fatal;    // "model.hidden_size: was 24, is 48: another model, ..."
  std::vector<std::string> changed;  // keys that may change, and did
  std::vector<std::string> bitwise;  // why the bits may differ; empty: bitwise
};

// Differences of the config, key by key (of data and stages, what the steps that are done have read
// decides); they and the fingerprint decide about bits.
ResumeReport check_resume(const CheckpointMeta& meta, const Config& config,
                          const std::map<std::string, std::string>& fingerprint);

}  // namespace sluice
