// trainer/metrics/jsonl.cpp -- append, and cut what is to be repeated.
#include "trainer/metrics/jsonl.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/base/check.h"

namespace sluice {

// Where to cut: behind the last complete line whose step is not past `step`.
static int64_t bytes_to_keep(const std::string& path, int64_t step) {
  std::ifstream in(path, std::ios::binary);
  int64_t keep = 0;
  for (std::string line; std::getline(in, line);) {
    if (in.eof()) break;  // no newline: cut off while it was written
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_discarded() || !json.is_object()) break;
    const auto at = json.find("step");
    if (at == json.end() || !at->is_number_integer() || at->get<int64_t>() > step) break;
    keep += int64_t(line.size()) + 1;
  }
  return keep;
}

JsonLines::JsonLines(const std::string& path, int64_t resume_step) {
  if (access(path.c_str(), F_OK) == 0) {
    const int64_t keep = bytes_to_keep(path, resume_step);
    SLUICE_CHECK(truncate(path.c_str(), keep) == 0, path, ": ", std::strerror(errno));
  }
  file_ = std::make_unique<AppendFile>(path);
}

void JsonLines::write(const std::string& event, int64_t step, const MetricFields& fields,
                      const TextFields& texts) {
  nlohmann::ordered_json line{{"event", event}, {"step", step}};
  for (const auto& [key, value] : fields) {
    if (std::isfinite(value))
      line[key] = value;
    else
      line[key] = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }
  for (const auto& [key, text] : texts) line[key] = text;
  // A text that is no UTF-8 (a path) must not stop a run: its bad bytes are replaced.
  file_->append(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace sluice
