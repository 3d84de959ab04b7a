// trainer/metrics/jsonl.h -- one JSON object a line, appended: RUN/metrics.jsonl.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace sluice {

// Numbers are written with the fewest digits that read back to the same double, so that two runs
// can be compared bit for bit; NaN and infinities, which JSON lacks, as strings.
class JsonLines {
 public:
  using Fields = std::vector<std::pair<std::string, double>>;

  // Opens for appending. Lines of steps after `resume_step` are cut away first: a run that died
  // after its last checkpoint repeats those steps.
  JsonLines(const std::string& path, int64_t resume_step);

  // {"event": event, "step": step, fields...}; flushed at once. A full disk is an Error.
  void write(const std::string& event, int64_t step, const Fields& fields);

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace sluice
