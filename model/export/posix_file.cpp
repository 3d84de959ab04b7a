// model/export/posix_file.cpp -- open, pread, pwrite, fsync and rename, checked.
#include "model/export/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace sluice {

void fail_errno(const char* file, int line, const std::string& path, const char* what) {
  const int code = errno;
  fail(file, line, path.c_str(), cat(what, ": ", std::strerror(code), " (errno ", code, ")"));
}

PosixFile PosixFile::create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) fail_errno(__FILE__, __LINE__, path, "create");
  return PosixFile(path, fd);
}

PosixFile PosixFile::open(const std::string& path) {
  // O_NONBLOCK: a pipe of that name would wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail_errno(__FILE__, __LINE__, path, "open");
  PosixFile file(path, fd);
  struct stat status {};
  if (::fstat(fd, &status) != 0) fail_errno(__FILE__, __LINE__, path, "stat");
  SLUICE_CHECK(S_ISREG(status.st_mode), path, " is no regular file");
  return file;
}

PosixFile::PosixFile(PosixFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

PosixFile& PosixFile::operator=(PosixFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

PosixFile::~PosixFile() {
  if (fd_ >= 0) ::close(fd_);
}

int64_t PosixFile::size() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail_errno(__FILE__, __LINE__, path_, "stat");
  return status.st_size;
}

void PosixFile::read(int64_t offset, void* to, int64_t bytes) const {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n =
        ::pread(fd_, static_cast<char*>(to) + done, size_t(bytes - done), offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(__FILE__, __LINE__, path_, "read");
    SLUICE_CHECK(n > 0, path_, ": ends at byte ", offset + done, ", expected ", offset + bytes,
                 " bytes at least");
    done += n;
  }
}

void PosixFile::write(int64_t offset, const void* from, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n =
        ::pwrite(fd_, static_cast<const char*>(from) + done, size_t(bytes - done), offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(__FILE__, __LINE__, path_, "write");
    done += n;
  }
}

void PosixFile::sync() {
  if (::fsync(fd_) != 0) fail_errno(__FILE__, __LINE__, path_, "fsync");
}

void PosixFile::close() {
  if (::close(std::exchange(fd_, -1)) != 0) fail_errno(__FILE__, __LINE__, path_, "close");
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno(__FILE__, __LINE__, path, "open");
  const int status = ::fsync(fd), code = errno;
  ::close(fd);
  errno = code;
  if (status != 0) fail_errno(__FILE__, __LINE__, path, "fsync");
}

void rename_path(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0)
    fail_errno(__FILE__, __LINE__, from, cat("rename to ", to).c_str());
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace sluice
