// data/shards/shard_reader.cpp -- checks the frame at opening, and each chunk as it is read.
#include <zlib.h>

#include <algorithm>

#include "data/shards/hdf5_file.h"
#include "data/shards/shard.h"
#include "kernels/base/check.h"

namespace sluice {

struct ShardReader::File {
  std::mutex mutex;  // HDF5's own library lock is not in every build
  H5Handle file, tokens;
  bool narrow = false;
  std::vector<bool> verified;
  int64_t cached_chunk = -1;
  std::vector<int32_t> cache;  // rows are read in pieces of one chunk, again and again
};

static void need(bool ok, const std::string& message) {
  if (!ok) throw Error(message);
}

ShardReader::ShardReader(const std::string& path) : path_(path), file_(std::make_unique<File>()) {
  silence_hdf5();
  File& f = *file_;
  f.file = H5Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  need(f.file.ok(), path + ": cannot be opened as HDF5 (missing, truncated, or another format)");
  const int64_t version = read_integer(path, f.file, "format_version");
  need(version == 1, cat(path, ": format_version: expected 1, found ", version));
  info_.vocab_size = read_integer(path, f.file, "vocab_size");
  info_.end_of_text = int32_t(read_integer(path, f.file, "end_of_text"));
  info_.tokenizer = read_string(path, f.file, "tokenizer");
  text_bytes_ = read_integer(path, f.file, "text_bytes");
  const int64_t crc_offsets = read_integer(path, f.file, "crc_offsets");

  f.narrow = info_.vocab_size <= 65536;
  int64_t tokens = 0, n = 0;
  f.tokens = open_dataset(path, f.file, "tokens", f.narrow ? H5T_STD_U16LE : H5T_STD_U32LE, &tokens);
  {
    const H5Handle d = open_dataset(path, f.file, "document_offsets", H5T_STD_I64LE, &n);
    offsets_.resize(size_t(n));
    read_range(path, d, "document_offsets", H5T_STD_I64LE, 0, n, offsets_.data());
  }
  const auto crc = int64_t(crc32(0, reinterpret_cast<const Bytef*>(offsets_.data()),
                                 uInt(offsets_.size() * sizeof(int64_t))));
  need(crc == crc_offsets,
       cat(path, ": document_offsets: crc32 expected ", crc_offsets, ", found ", crc));
  need(!offsets_.empty() && offsets_.front() == 0 && std::is_sorted(offsets_.begin(), offsets_.end()),
       path + ": document_offsets: expected to start at 0 and never to fall");
  need(offsets_.back() == tokens,
       cat(path, ": tokens: expected ", offsets_.back(), " elements, found ", tokens));
  {
    const H5Handle d = open_dataset(path, f.file, "token_bytes", H5T_STD_U32LE, &n);
    need(n == info_.vocab_size, cat(path, ": token_bytes: expected ", info_.vocab_size, ", found ", n));
    info_.token_bytes.resize(size_t(n));
    read_range(path, d, "token_bytes", H5T_STD_U32LE, 0, n, info_.token_bytes.data());
  }
  {
    const H5Handle d = open_dataset(path, f.file, "chunk_crc", H5T_STD_U32LE, &n);
    const int64_t chunks = (tokens + kShardChunk - 1) / kShardChunk;
    need(n == chunks, cat(path, ": chunk_crc: expected ", chunks, " elements, found ", n));
    crc_.resize(size_t(n));
    read_range(path, d, "chunk_crc", H5T_STD_U32LE, 0, n, crc_.data());
  }
  f.verified.assign(crc_.size(), false);
}

ShardReader::~ShardReader() = default;
ShardReader::ShardReader(ShardReader&&) noexcept = default;

void ShardReader::read_chunk(int64_t chunk, std::vector<int32_t>& out) const {
  File& f = *file_;
  const int64_t begin = chunk * kShardChunk, count = std::min(tokens() - begin, kShardChunk);
  std::vector<uint32_t> wide(static_cast<size_t>(count));
  if (f.narrow) {
    std::vector<uint16_t> narrow(static_cast<size_t>(count));
    read_range(path_, f.tokens, "tokens", H5T_STD_U16LE, begin, count, narrow.data());
    std::copy(narrow.begin(), narrow.end(), wide.begin());
  } else {
    read_range(path_, f.tokens, "tokens", H5T_STD_U32LE, begin, count, wide.data());
  }
  if (!f.verified[size_t(chunk)]) {
    const auto crc = uint32_t(crc32(0, reinterpret_cast<const Bytef*>(wide.data()),
                                    uInt(wide.size() * sizeof(uint32_t))));
    const auto largest = std::max_element(wide.begin(), wide.end());
    need(*largest < uint64_t(info_.vocab_size),
         cat(path_, ": tokens: expected ids below ", info_.vocab_size, " (vocab_size), found ", *largest,
             " at ", begin + (largest - wide.begin())));
    need(crc == crc_[size_t(chunk)], cat(path_, ": tokens ", begin, " to ", begin + count,
                                         ": crc32 expected ", crc_[size_t(chunk)], ", found ", crc));
    f.verified[size_t(chunk)] = true;
  }
  out.assign(wide.begin(), wide.end());
}

void ShardReader::read(int64_t begin, int64_t count, int32_t* out) const {
  SLUICE_CHECK(begin >= 0 && count >= 0 && begin + count <= tokens(), "tokens ", begin, " to ",
               begin + count, " of ", tokens());
  File& f = *file_;
  const std::lock_guard lock(f.mutex);
  while (count > 0) {
    const int64_t chunk = begin / kShardChunk, in_chunk = begin % kShardChunk;
    if (f.cached_chunk != chunk) {
      f.cached_chunk = -1;  // until it is read without an error
      read_chunk(chunk, f.cache);
      f.cached_chunk = chunk;
    }
    const int64_t n = std::min(count, kShardChunk - in_chunk);
    std::copy_n(f.cache.begin() + in_chunk, n, out);
    begin += n;
    out += n;
    count -= n;
  }
}

}  // namespace sluice
