// data/shards/shard_reader.cpp -- checks the frame at opening, and each chunk as it is read.
#include <zlib.h>

#include <algorithm>

#include "data/shards/hdf5_file.h"
#include "data/shards/shard.h"
#include "kernels/base/check.h"

namespace sluice {

// Everything here is touched under Hdf5Lock only.
struct ShardReader::File {
  H5Handle file, tokens;
  bool narrow = false;  // u16
  std::vector<uint16_t> narrow_tokens;
  std::vector<bool> verified;  // by chunk
  int64_t cached_chunk = -1;   // the chunk that was verified last: files are read in order too
  std::vector<int32_t> cache;
};

static void need(bool ok, const std::string& message) {
  if (!ok) throw Error(message);
}

template <class T>
static int64_t crc_of(const std::vector<T>& v) {
  return int64_t(crc32_z(0, reinterpret_cast<const Bytef*>(v.data()), v.size() * sizeof(T)));
}

template <class T>
static std::vector<T> read_all(const std::string& path, hid_t file, const char* name, hid_t type) {
  int64_t n = 0;
  const H5Handle d = open_dataset(path, file, name, type, &n);
  std::vector<T> out(static_cast<size_t>(n));
  read_range(path, d, name, type, 0, n, out.data());
  return out;
}

ShardReader::ShardReader(const std::string& path) : path_(path), file_(std::make_unique<File>()) {
  const Hdf5Lock lock;
  file_->file = open_file(path);
  read_frame();
}

ShardReader::~ShardReader() = default;
ShardReader::ShardReader(ShardReader&&) noexcept = default;

void ShardReader::read_frame() {
  File& f = *file_;
  const int64_t version = read_integer(path_, f.file, "format_version");
  need(version == 1, cat(path_, ": format_version: expected 1, found ", version));
  info_.vocab_size = read_integer(path_, f.file, "vocab_size");
  need(info_.vocab_size > 0 && info_.vocab_size <= INT32_MAX,
       cat(path_, ": vocab_size: expected 1 to ", INT32_MAX, ", found ", info_.vocab_size));
  const int64_t end_of_text = read_integer(path_, f.file, "end_of_text");
  need(end_of_text >= 0 && end_of_text < info_.vocab_size,
       cat(path_, ": end_of_text: expected an id below ", info_.vocab_size, ", found ",
           end_of_text));
  info_.end_of_text = int32_t(end_of_text);
  info_.tokenizer = read_string(path_, f.file, "tokenizer");
  text_bytes_ = read_integer(path_, f.file, "text_bytes");

  f.narrow = info_.vocab_size <= 65536;
  int64_t tokens = 0;
  f.tokens =
      open_dataset(path_, f.file, "tokens", f.narrow ? H5T_STD_U16LE : H5T_STD_U32LE, &tokens);
  offsets_ = read_all<int64_t>(path_, f.file, "document_offsets", H5T_STD_I64LE);
  info_.token_bytes = read_all<uint32_t>(path_, f.file, "token_bytes", H5T_STD_U32LE);
  crc_ = read_all<uint32_t>(path_, f.file, "chunk_crc", H5T_STD_U32LE);
  check_frame(tokens);
  f.verified.assign(crc_.size(), false);
}

void ShardReader::check_frame(int64_t tokens) const {
  const int64_t want = read_integer(path_, file_->file, "crc_offsets"), crc = crc_of(offsets_);
  need(crc == want, cat(path_, ": document_offsets: crc32 expected ", want, ", found ", crc));
  need(!offsets_.empty() && offsets_.front() == 0,
       path_ + ": document_offsets: expected to start at 0");
  const auto fall = std::is_sorted_until(offsets_.begin(), offsets_.end());
  need(fall == offsets_.end(), cat(path_, ": document_offsets: expected never to fall, found ",
                                   fall == offsets_.end() ? 0 : *fall, " after ",
                                   fall == offsets_.end() ? 0 : *(fall - 1)));
  need(offsets_.back() == tokens,
       cat(path_, ": tokens: expected ", offsets_.back(), " elements, found ", tokens));

  const auto bytes = int64_t(info_.token_bytes.size());
  need(bytes == info_.vocab_size,
       cat(path_, ": token_bytes: expected ", info_.vocab_size, " elements, found ", bytes));
  const int64_t want_bytes = read_integer(path_, file_->file, "crc_token_bytes");
  const int64_t crc_bytes = crc_of(info_.token_bytes);
  need(crc_bytes == want_bytes,
       cat(path_, ": token_bytes: crc32 expected ", want_bytes, ", found ", crc_bytes));

  const int64_t chunks = (tokens + kShardChunk - 1) / kShardChunk;
  need(int64_t(crc_.size()) == chunks,
       cat(path_, ": chunk_crc: expected ", chunks, " elements, found ", crc_.size()));
}

void ShardReader::read_unchecked(int64_t begin, int64_t count, int32_t* out) const {
  File& f = *file_;
  if (!f.narrow)  // ids are below 2^31 (vocab_size), so the bits are those of int32
    return read_range(path_, f.tokens, "tokens", H5T_STD_U32LE, begin, count, out);
  f.narrow_tokens.resize(size_t(count));
  read_range(path_, f.tokens, "tokens", H5T_STD_U16LE, begin, count, f.narrow_tokens.data());
  std::copy(f.narrow_tokens.begin(), f.narrow_tokens.end(), out);
}

void ShardReader::load_chunk(int64_t chunk) const {
  File& f = *file_;
  const int64_t begin = chunk * kShardChunk, count = std::min(tokens() - begin, kShardChunk);
  f.cached_chunk = -1;  // until it is read without an error
  f.cache.resize(size_t(count));
  read_unchecked(begin, count, f.cache.data());
  const int64_t want = crc_[size_t(chunk)], crc = crc_of(f.cache);
  need(crc == want, cat(path_, ": tokens ", begin, " to ", begin + count, ": crc32 expected ", want,
                        ", found ", crc));
  for (size_t i = 0; i < f.cache.size(); ++i)
    if (uint32_t(f.cache[i]) >= uint64_t(info_.vocab_size))
      throw Error(cat(path_, ": tokens: expected ids below ", info_.vocab_size,
                      " (vocab_size), found ", uint32_t(f.cache[i]), " at ", begin + int64_t(i)));
  f.verified[size_t(chunk)] = true;
  f.cached_chunk = chunk;
}

void ShardReader::read(int64_t begin, int64_t count, int32_t* out) const {
  SLUICE_CHECK(begin >= 0 && count >= 0 && begin <= tokens() && count <= tokens() - begin, path_,
               ": ", count, " tokens from ", begin, " of ", tokens());
  const Hdf5Lock lock;
  File& f = *file_;
  while (count > 0) {
    const int64_t chunk = begin / kShardChunk, in_chunk = begin % kShardChunk;
    const int64_t n = std::min(count, kShardChunk - in_chunk);
    if (!f.verified[size_t(chunk)]) load_chunk(chunk);
    if (f.cached_chunk == chunk)
      std::copy_n(f.cache.begin() + in_chunk, n, out);
    else
      read_unchecked(begin, n, out);
    begin += n;
    out += n;
    count -= n;
  }
}

}  // namespace sluice
