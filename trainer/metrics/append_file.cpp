// trainer/metrics/append_file.cpp -- O_APPEND, and truncation after a failure.
#include "trainer/metrics/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/base/check.h"

namespace sluice {

AppendFile::AppendFile(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw Error(cat(path, ": ", std::strerror(errno)));
}

AppendFile::~AppendFile() {
  ::close(fd_);
}

void AppendFile::append(const std::string& record) {
  struct stat before {};
  if (::fstat(fd_, &before) != 0) throw Error(cat(path_, ": ", std::strerror(errno)));
  for (size_t done = 0; done < record.size();) {
    const ssize_t n = ::write(fd_, record.data() + done, record.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const std::string why = n < 0 ? std::strerror(errno) : "nothing was written";
      if (::ftruncate(fd_, before.st_size) != 0)
        throw Error(cat(path_, ": ", why, "; a part stays"));
      throw Error(cat(path_, ": ", why));
    }
    done += size_t(n);
  }
}

}  // namespace sluice
