// trainer/loop/resume.cpp -- every difference is named.
#include "trainer/loop/resume.h"

#include "configs/schema.h"
#include "trainer/loop/stages.h"

namespace sluice {

static bool starts_with(const std::string& s, const std::string& begin) {
  return s.rfind(begin, 0) == 0;
}

ResumeReport check_resume(const CheckpointMeta& meta, const Config& config,
                          const std::map<std::string, std::string>& fingerprint) {
  ResumeReport report;
  const auto old = config::load_string<Config>(meta.config_yaml, "config.yaml of the checkpoint");
  for (const auto& [key, was, is] : config::diff(old, config)) {
    const std::string line = cat(key, ": was ", was, ", is ", is);
    const bool of_the_run =
        starts_with(key, "model.") || key == "train.batch_tokens" || key == "run.seed";
    (of_the_run ? report.fatal : report.changed).push_back(line);
    if (!of_the_run &&
        (key == "train.micro_batch_tokens" || starts_with(key, "optim.") || key == "train.steps" ||
         starts_with(key, "train.stages") || starts_with(key, "train.spike")))
      report.bitwise.push_back(line);
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
