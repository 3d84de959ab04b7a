// model/export/posix_file.h -- files and folders whose every failure is an Error with the path and
// errno's text. What a run keeps is changed through these calls alone, so that a test can stop or
// fail each of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

bool exists(const std::string& path);  // a link whose target is gone exists, too
// With its parents, on the disk when this returns; nothing happens if it is there.
void make_folder(const std::string& path);
void remove_tree(const std::string& path);  // a link, not its target; fine if nothing is there
std::vector<std::string> names_in(const std::string& folder);  // sorted; none if there is no folder

// The entries of a folder (files made, renamed or removed in it) to the disk.
void sync_folder(const std::string& path);
// Replaces `to`; atomic within one file system.
void rename_path(const std::string& from, const std::string& to);
// Swaps two names in one step. False, and nothing is done, where the file system cannot (NFS).
bool exchange_paths(const std::string& a, const std::string& b);
std::string parent_of(const std::string& path);  // "." if it has none

std::string read_text(const std::string& path);
// The file is the old one or the new one at any moment, and on the disk when this returns.
void replace_text(const std::string& path, const std::string& text);

// A test's hand on the disk. The hook is called before each of these system calls and returns how
// many of the bytes a write may take (the rest becomes a further write), anything >= 0 for the
// others; below 0, with errno set, the call is not made and fails. It may kill the process, too.
enum class DiskCall : uint8_t { create, write, sync, make_folder, rename, exchange, remove };
using DiskHook = int64_t (*)(DiskCall call, const std::string& path, int64_t bytes);
void set_disk_hook(DiskHook hook);  // null, as at the start: none

}  // namespace sluice
