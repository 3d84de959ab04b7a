// trainer/loop/resume.h -- does a checkpoint continue this run, and with the same bits?
#pragma once

#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/config.h"

namespace sluice {

struct ResumeReport {
  std::vector<std::string> fatal;    // another model or another data order: not this run
  std::vector<std::string> changed;  // keys that may change, and did
  std::vector<std::string> bitwise;  // why the bits may differ; empty: bitwise
};

// Differences of the config by key: model.*, train.batch_tokens, run.seed and the data of steps
// that are done are fatal; the rest, stages to come included, may change. Micro-batch, threads
// aside, and the fingerprint decide about bits.
ResumeReport check_resume(const CheckpointMeta& meta, const Config& config,
                          const std::map<std::string, std::string>& fingerprint);

}  // namespace sluice
