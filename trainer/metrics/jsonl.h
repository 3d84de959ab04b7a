// trainer/metrics/jsonl.h -- one JSON object a line, appended: RUN/metrics.jsonl.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trainer/metrics/append_file.h"

namespace sluice {

using MetricFields = std::vector<std::pair<std::string, double>>;
using TextFields = std::vector<std::pair<std::string, std::string>>;

// Numbers are written with the fewest digits that read back to the same double, so that two runs
// can be compared bit for bit; NaN and infinities, which JSON lacks, as strings.
class JsonLines {
 public:
  // Opens for appending. Lines of steps after `resume_step` are cut away first: a run that died
  // after its last checkpoint repeats those steps.
  JsonLines(const std::string& path, int64_t resume_step);

  // {"event": event, "step": step, fields..., texts...}; on the way to the disk when this returns.
  // A full disk is an Error.
  void write(const std::string& event, int64_t step, const MetricFields& fields,
             const TextFields& texts = {});

 private:
  std::unique_ptr<AppendFile> file_;
};

}  // namespace sluice
