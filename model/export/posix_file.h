// model/export/posix_file.h -- files whose every failure is an Error with the path and errno's
// text.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/base/check.h"

namespace sluice {

// "RUN/x.bin: write: No space left on device (errno 28)"
[[noreturn]] void fail_errno(const char* file, int line, const std::string& path, const char* what);

// An open file descriptor; move-only. Reads and writes are whole: a short one is continued or
// fails.
class PosixFile {
 public:
  static PosixFile create(const std::string& path);  // or empty what is there; for writing
  static PosixFile open(const std::string& path);    // for reading; must be a regular file

  PosixFile(PosixFile&& other) noexcept;
  PosixFile& operator=(PosixFile&& other) noexcept;
  ~PosixFile();

  const std::string& path() const { return path_; }
  int64_t size() const;  // bytes, now

  // pread, no mmap: a file that somebody cuts short is an Error then, and no SIGBUS.
  void read(int64_t offset, void* to, int64_t bytes) const;
  void write(int64_t offset, const void* from, int64_t bytes);
  void sync();   // to the disk
  void close();  // with its errors, which the destructor cannot report

 private:
  PosixFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_ = -1;
};

// The entries of a folder (files made, renamed or removed in it) to the disk.
void sync_folder(const std::string& path);
// Replaces `to`; atomic within one file system.
void rename_path(const std::string& from, const std::string& to);
std::string parent_of(const std::string& path);  // "." if it has none

}  // namespace sluice
