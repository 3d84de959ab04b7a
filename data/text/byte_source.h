// data/text/byte_source.h -- the bytes of a file or of standard input, decompressed as they come.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace sluice {

enum class Compression : uint8_t { none, gzip, xz, zstd };

// By the name's end: .gz, .xz, .zst; else none. `stem`, if asked for, is the name without it.
Compression compression_of(std::string_view path, std::string_view* stem = nullptr);

// One decompressing stream, its library's state inside.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // Takes from the front of `in` and writes up to `size` bytes to `out`; returns how many. `last`:
  // nothing follows `in`. Throws Error with what is wrong, without the file's name.
  virtual size_t decode(std::string_view& in, bool last, char* out, size_t size) = 0;
  // Is the input complete here: after a whole stream, before another one?
  virtual bool complete() const = 0;
};
std::unique_ptr<Decoder> make_decoder(Compression compression);  // nullptr for none

class ByteSource {
 public:
  explicit ByteSource(const std::string& path);  // "-": standard input, not compressed
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  // Up to `size` bytes, 0 at the end only. Every error names the file and the byte in it.
  size_t read(char* out, size_t size);
  int64_t consumed() const { return consumed_; }  // bytes of the file, compressed ones, so far

 private:
  bool refill();  // false: the file is at its end

  std::string path_, in_;
  std::string_view left_;  // of in_
  std::unique_ptr<Decoder> decoder_;
  int descriptor_ = -1;
  int64_t consumed_ = 0;
  bool at_end_ = false;
};

}  // namespace sluice
