// trainer/metrics/jsonl.cpp -- append, flush, and cut what is to be repeated.
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
    if (json.value("step", int64_t(0)) > step) break;
    keep += int64_t(line.size()) + 1;
  }
  return keep;
}

JsonLines::JsonLines(const std::string& path, int64_t resume_step) : path_(path) {
  if (access(path.c_str(), F_OK) == 0) {
    const int64_t keep = bytes_to_keep(path, resume_step);
    SLUICE_CHECK(truncate(path.c_str(), keep) == 0, path, ": ", std::strerror(errno));
  }
  file_.reset(std::fopen(path.c_str(), "ab"));
  SLUICE_CHECK(file_, path, ": ", std::strerror(errno));
}

void JsonLines::write(const std::string& event, int64_t step, const Fields& fields) {
  nlohmann::ordered_json line{{"event", event}, {"step", step}};
  for (const auto& [key, value] : fields) {
    if (std::isfinite(value))
      line[key] = value;
    else
      line[key] = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }
  const std::string text = line.dump() + "\n";
  const bool ok = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
                  std::fflush(file_.get()) == 0;
  SLUICE_CHECK(ok, path_, ": ", std::strerror(errno));
}

}  // namespace sluice
