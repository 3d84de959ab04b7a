// trainer/metrics/metrics.cpp -- to both files; a full disk is told and survived.
#include "trainer/metrics/metrics.h"

#include "kernels/base/check.h"

namespace sluice {

Metrics::Metrics(const std::string& run_dir, int64_t resume_step, const MetricsFiles& files,
                 std::function<void(const std::string&)> warn)
    : warn_(std::move(warn)) {
  if (files.jsonl) jsonl_ = std::make_unique<JsonLines>(run_dir + "/metrics.jsonl", resume_step);
  if (files.tensorboard)
    tensorboard_ = std::make_unique<TensorBoard>(run_dir + "/tensorboard", resume_step);
}

void Metrics::attempt(int64_t& lost, const std::function<void()>& write) {
  try {
    write();
  } catch (const Error& e) {
    if (lost++ == 0) warn_(cat("metrics  ", e.what(), "; training goes on without"));
    return;
  }
  if (lost > 0) warn_(cat("metrics  written again; ", lost, " records were lost"));
  lost = 0;
}

void Metrics::write(const std::string& event, int64_t step, const MetricFields& fields) {
  if (jsonl_) attempt(jsonl_lost_, [&] { jsonl_->write(event, step, fields); });
  if (!tensorboard_) return;
  MetricFields scalars;
  for (const auto& [field, value] : fields) scalars.emplace_back(event + "/" + field, value);
  attempt(tensorboard_lost_, [&] { tensorboard_->write(step, scalars); });
}

void Metrics::note(const std::string& event, int64_t step, const TextFields& texts) {
  if (jsonl_) attempt(jsonl_lost_, [&] { jsonl_->write(event, step, {}, texts); });
}

}  // namespace sluice
