// data/text/byte_source.cpp -- read(2), and a decoder behind it.
#include "data/text/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/base/check.h"

namespace sluice {

constexpr size_t kReadBytes = 1 << 18;

Compression compression_of(std::string_view path, std::string_view* stem) {
  Compression found = Compression::none;
  size_t suffix = 0;
  if (path.ends_with(".gz")) found = Compression::gzip, suffix = 3;
  if (path.ends_with(".xz")) found = Compression::xz, suffix = 3;
  if (path.ends_with(".zst")) found = Compression::zstd, suffix = 4;
  if (stem) *stem = path.substr(0, path.size() - suffix);
  return found;
}

ByteSource::ByteSource(const std::string& path) : path_(path == "-" ? "standard input" : path) {
  descriptor_ = path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw Error(cat(path_, ": ", std::strerror(errno)));
  if (path != "-") {
    decoder_ = make_decoder(compression_of(path));
    posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
}

ByteSource::~ByteSource() {
  close(descriptor_);
}

bool ByteSource::refill() {
  in_.resize(kReadBytes);
  ssize_t n = 0;
  do n = ::read(descriptor_, in_.data(), in_.size());
  while (n < 0 && errno == EINTR);
  if (n < 0) throw Error(cat(path_, ": byte ", consumed_, ": ", std::strerror(errno)));
  left_ = std::string_view(in_).substr(0, size_t(n));
  at_end_ = n == 0;
  consumed_ += n;
  return n > 0;
}

size_t ByteSource::read(char* out, size_t size) {
  for (;;) {
    if (left_.empty() && !at_end_) refill();
    if (!decoder_) {
      const size_t n = std::min(size, left_.size());
      std::copy_n(left_.data(), n, out);
      left_.remove_prefix(n);
      return n;
    }
    if (at_end_ && decoder_->complete()) return 0;
    size_t n = 0;
    try {
      n = decoder_->decode(left_, at_end_, out, size);
    } catch (const Error& e) {
      throw Error(cat(path_, ": byte ", consumed_ - int64_t(left_.size()), ": ", e.what()));
    }
    if (n > 0) return n;
    if (at_end_ && left_.empty() && !decoder_->complete())
      throw Error(cat(path_, ": byte ", consumed_,
                      ": the file ends inside of its compressed data (cut off?)"));
  }
}

}  // namespace sluice
