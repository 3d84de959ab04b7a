// model/export/posix_file.cpp -- open, pread, pwrite, fsync, rename and unlink, checked.
#include "model/export/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace sluice {
namespace {

std::atomic<DiskHook> disk_hook{nullptr};

// Bytes that a write may take now; below 0: fail as errno says.
int64_t allowed(DiskCall call, const std::string& path, int64_t bytes = 0) {
  const DiskHook hook = disk_hook.load(std::memory_order_acquire);
  return hook ? hook(call, path, bytes) : bytes;
}

bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

void set_disk_hook(DiskHook hook) {
  disk_hook.store(hook, std::memory_order_release);
}

void fail_errno(const char* file, int line, const std::string& path, const char* what) {
  const int code = errno;
  fail(file, line, path.c_str(), cat(what, ": ", std::strerror(code), " (errno ", code, ")"));
}

PosixFile PosixFile::create(const std::string& path) {
  const int fd = allowed(DiskCall::create, path) < 0
                     ? -1
                     : ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
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
    const int64_t now = allowed(DiskCall::write, path_, bytes - done);
    const ssize_t n =
        now < 0 ? -1
                : ::pwrite(fd_, static_cast<const char*>(from) + done, size_t(now), offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(__FILE__, __LINE__, path_, "write");
    done += n;
  }
}

void PosixFile::sync() {
  if (allowed(DiskCall::sync, path_) < 0 || ::fsync(fd_) != 0)
    fail_errno(__FILE__, __LINE__, path_, "fsync");
}

void PosixFile::close() {
  if (::close(std::exchange(fd_, -1)) != 0) fail_errno(__FILE__, __LINE__, path_, "close");
}

bool exists(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT) fail_errno(__FILE__, __LINE__, path, "stat");
  return false;
}

void make_folder(const std::string& path) {
  SLUICE_CHECK(!path.empty(), "a folder without a name");
  if (is_folder(path)) return;
  const std::string parent = parent_of(path);
  if (parent != path) make_folder(parent);
  if (allowed(DiskCall::make_folder, path) < 0 || ::mkdir(path.c_str(), 0777) != 0) {
    const int code = errno;
    if (code == EEXIST && is_folder(path)) return;
    errno = code;
    fail_errno(__FILE__, __LINE__, path, "make folder");
  }
  sync_folder(parent);
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  if (!exists(folder)) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), ::closedir);
  if (!dir) fail_errno(__FILE__, __LINE__, folder, "list");
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (!entry && errno != 0) fail_errno(__FILE__, __LINE__, folder, "list");
    if (!entry) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void remove_tree(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return;
    fail_errno(__FILE__, __LINE__, path, "stat");
  }
  if (S_ISDIR(status.st_mode))
    for (const std::string& name : names_in(path)) remove_tree(path + "/" + name);
  if (allowed(DiskCall::remove, path) < 0 || std::remove(path.c_str()) != 0)
    fail_errno(__FILE__, __LINE__, path, "remove");
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno(__FILE__, __LINE__, path, "open");
  const int status = allowed(DiskCall::sync, path) < 0 ? -1 : ::fsync(fd), code = errno;
  ::close(fd);
  errno = code;
  if (status != 0) fail_errno(__FILE__, __LINE__, path, "fsync");
}

void rename_path(const std::string& from, const std::string& to) {
  if (allowed(DiskCall::rename, from) < 0 || std::rename(from.c_str(), to.c_str()) != 0)
    fail_errno(__FILE__, __LINE__, from, cat("rename to ", to).c_str());
}

bool exchange_paths(const std::string& a, const std::string& b) {
  if (allowed(DiskCall::exchange, a) >= 0 &&
      ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0)
    return true;
  if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) return false;
  fail_errno(__FILE__, __LINE__, a, cat("exchange with ", b).c_str());
}

std::string read_text(const std::string& path) {
  const PosixFile file = PosixFile::open(path);
  std::string text(size_t(file.size()), '\0');
  file.read(0, text.data(), int64_t(text.size()));
  return text;
}

void replace_text(const std::string& path, const std::string& text) {
  const std::string partial = path + ".partial";
  try {
    PosixFile file = PosixFile::create(partial);
    file.write(0, text.data(), int64_t(text.size()));
    file.sync();
    file.close();
    rename_path(partial, path);
  } catch (const Error&) {
    ::unlink(partial.c_str());
    throw;
  }
  sync_folder(parent_of(path));
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace sluice
