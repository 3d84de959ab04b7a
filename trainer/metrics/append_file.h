// trainer/metrics/append_file.h -- a file that grows by whole records.
#pragma once

#include <string>

namespace sluice {

// A record is written by one call, so that a reader (or a crash) sees all of it or none; if the
// disk has no room for it, what was written of it is cut off again and an Error says why.
class AppendFile {
 public:
  explicit AppendFile(const std::string& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(const std::string& record);

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace sluice
