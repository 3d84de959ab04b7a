// trainer/checkpoint/run_lock.cpp -- flock on RUN/lock, whose text names the holder.
#include "trainer/checkpoint/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "model/export/posix_file.h"
#include "trainer/checkpoint/folder.h"

namespace sluice {
namespace {

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"unknown host"};
  const char* const job = std::getenv("SLURM_JOB_ID");
  return cat("pid ", ::getpid(), " on ", host.data(), job ? cat(", Slurm job ", job) : "");
}

// What the holder wrote. It may not have yet: then the text of an earlier one, or none.
std::string holder(int fd) {
  std::array<char, 512> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  std::string s(text.data(), n > 0 ? size_t(n) : 0);
  s = s.substr(0, s.find('\n'));
  return s.empty() ? "another process" : s;
}

void take(int fd, const std::string& path) {
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) fail_errno(__FILE__, __LINE__, path, "flock");
    fail(__FILE__, __LINE__, path.c_str(), "this run folder is in use by " + holder(fd));
  }
  const std::string text = this_process() + "\n";
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, text.data(), text.size(), 0) != ssize_t(text.size()))
    fail_errno(__FILE__, __LINE__, path, "write");
}

}  // namespace

RunLock::RunLock(const std::string& run_dir) : run_dir_(run_dir) {
  make_folder(run_dir);
  const std::string path = run_dir + "/lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno(__FILE__, __LINE__, path, "open");
  try {
    take(fd_, path);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

// The file stays: if it were removed, two processes could hold locks on two files of that name.
RunLock::~RunLock() {
  ::close(fd_);
}

}  // namespace sluice
