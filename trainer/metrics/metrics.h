// trainer/metrics/metrics.h -- what a run reports, into every file that the config asks for.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "trainer/metrics/jsonl.h"
#include "trainer/metrics/tensorboard.h"

namespace sluice {

struct MetricsFiles {
  bool jsonl = true;        // RUN/metrics.jsonl
  bool tensorboard = true;  // RUN/tensorboard/
};

// A file that cannot be written to (a full disk) does not stop a run: `warn` is called once, and
// once more when it can be written to again. Not to be able to open one is an Error.
class Metrics {
 public:
  Metrics(const std::string& run_dir, int64_t resume_step, const MetricsFiles& files,
          std::function<void(const std::string&)> warn);

  // Numbers of a step: a line of metrics.jsonl, and the scalars "event/field".
  void write(const std::string& event, int64_t step, const MetricFields& fields);
  // Something that happened to the run (start, resume, save, skip, ...): a line of metrics.jsonl.
  void note(const std::string& event, int64_t step, const TextFields& texts);

 private:
  void attempt(int64_t& lost, const std::function<void()>& write);

  std::unique_ptr<JsonLines> jsonl_;
  std::unique_ptr<TensorBoard> tensorboard_;
  int64_t jsonl_lost_ = 0, tensorboard_lost_ = 0;  // records since the last that was written
  std::function<void(const std::string&)> warn_;
};

}  // namespace sluice
