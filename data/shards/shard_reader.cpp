// data/shards/shard_reader.cpp -- checks sizes at opening, each chunk and each page of a table as
// it is read.
#include <zlib.h>

#include <algorithm>

#include "data/shards/hdf5_file.h"
#include "data/shards/shard.h"
#include "kernels/base/check.h"

namespace sluice {

// Everything here is touched under Hdf5Lock only.
struct ShardReader::File {
  H5Handle file, tokens, offsets, crc, largest, chunk_documents;
  bool narrow = false;  // u16
  std::vector<uint16_t> narrow_tokens;
  std::vector<bool> verified;  // by chunk
  int64_t cached_chunk = -1;   // the chunk that was verified last: files are read in order too
  std::vector<int32_t> cache;
  std::vector<int64_t> all_offsets;
};

static void need(bool ok, const std::string& message) {
  if (!ok) throw Error(message);
}

template <class T>
static int64_t crc_of(const std::vector<T>& v) {
  return int64_t(crc32_z(0, reinterpret_cast<const Bytef*>(v.data()), v.size() * sizeof(T)));
}

static void need_count(const std::string& path, const char* name, int64_t found, int64_t expected) {
  need(found == expected,
       cat(path, ": ", name, ": expected ", expected, " elements, found ", found));
}

ShardReader::ShardReader(const std::string& path) : path_(path), file_(std::make_unique<File>()) {
  const Hdf5Lock lock;
  File& f = *file_;
  f.file = open_file(path);
  const int64_t version = read_integer(path_, f.file, "format_version");
  need(version != 1, cat(path_, ": format_version: expected ", kShardVersion,
                         ", found 1, of an older Sluice. Encode the text again: sluice data encode "
                         "TEXT --tokenizer TOKENIZER --out ",
                         path_));
  need(version == kShardVersion,
       cat(path_, ": format_version: expected ", kShardVersion, ", found ", version));
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
  open_tables();
  check_frame();
}

ShardReader::~ShardReader() = default;
ShardReader::ShardReader(ShardReader&&) noexcept = default;

void ShardReader::open_tables() {
  File& f = *file_;
  f.narrow = info_.vocab_size <= 65536;
  f.tokens =
      open_tokens(path_, f.file, "tokens", f.narrow ? H5T_STD_U16LE : H5T_STD_U32LE, &tokens_);
  int64_t offsets = 0, crc = 0, largest = 0, documents = 0, bytes = 0;
  f.offsets = open_table(path_, f.file, "document_offsets", H5T_STD_I64LE, &offsets);
  f.crc = open_table(path_, f.file, "chunk_crc", H5T_STD_U32LE, &crc);
  f.largest = open_table(path_, f.file, "chunk_largest", H5T_STD_U32LE, &largest);
  f.chunk_documents = open_table(path_, f.file, "chunk_documents", H5T_STD_I64LE, &documents);
  const int64_t chunks = (tokens_ + kShardChunk - 1) / kShardChunk;
  need_count(path_, "chunk_crc", crc, chunks);
  need_count(path_, "chunk_largest", largest, chunks);
  need_count(path_, "chunk_documents", documents, chunks + 1);
  need(offsets > 0, path_ + ": document_offsets: expected an element a document and one more");
  documents_ = offsets - 1;
  const H5Handle d = open_table(path_, f.file, "token_bytes", H5T_STD_U32LE, &bytes);
  need_count(path_, "token_bytes", bytes, info_.vocab_size);
  info_.token_bytes.resize(size_t(bytes));
  read_range(path_, d, "token_bytes", H5T_STD_U32LE, 0, bytes, info_.token_bytes.data());
  f.verified.assign(size_t(chunks), false);
}

// What can be checked without reading what grows with the file.
void ShardReader::check_frame() const {
  const int64_t want = read_integer(path_, file_->file, "crc_token_bytes");
  const int64_t crc = crc_of(info_.token_bytes);
  need(crc == want, cat(path_, ": token_bytes: crc32 expected ", want, ", found ", crc));
  int64_t first = 0, last = 0, all = 0;
  read_offsets(0, 1, &first);
  need(first == 0, cat(path_, ": document_offsets: expected to start at 0, found ", first));
  read_offsets(documents_, 1, &last);
  need(last == tokens_, cat(path_, ": tokens: expected ", last, " elements, found ", tokens_));
  const auto chunks = int64_t(file_->verified.size());
  read_range(path_, file_->chunk_documents, "chunk_documents", H5T_STD_I64LE, chunks, 1, &all);
  need(all == documents_,
       cat(path_, ": chunk_documents: expected to end with ", documents_, ", found ", all));
}

void ShardReader::read_offsets(int64_t first, int64_t count, int64_t* out) const {
  SLUICE_CHECK(
      first >= 0 && count >= 0 && first <= documents_ + 1 && count <= documents_ + 1 - first, path_,
      ": ", count, " offsets from ", first, " of ", documents_ + 1);
  const Hdf5Lock lock;
  read_range(path_, file_->offsets, "document_offsets", H5T_STD_I64LE, first, count, out);
  for (int64_t i = 0; i < count; ++i)
    need(out[i] >= (i > 0 ? out[i - 1] : 0) && out[i] <= tokens_,
         cat(path_, ": document_offsets: expected never to fall and at most ", tokens_, ", found ",
             out[i], i > 0 ? cat(" after ", out[i - 1]) : "", " at ", first + i));
}

std::vector<int64_t> ShardReader::document_ends(int64_t begin, int64_t end) const {
  SLUICE_CHECK(begin >= 0 && begin <= end && end <= tokens_, path_, ": documents from ", begin,
               " to ", end, " of ", tokens_);
  if (begin == end) return {};
  // Offsets above `begin` belong to documents that do not begin before its chunk; those up to `end`
  // begin before the chunk after its own, or are the end of all.
  const int64_t first_chunk = begin / kShardChunk, last_chunk = (end - 1) / kShardChunk;
  std::vector<int64_t> before(size_t(last_chunk - first_chunk + 2)), offsets;
  const Hdf5Lock lock;
  read_range(path_, file_->chunk_documents, "chunk_documents", H5T_STD_I64LE, first_chunk,
             int64_t(before.size()), before.data());
  const int64_t first = before.front(), last = before.back();
  need(first >= 0 && first <= last && last <= documents_,
       cat(path_, ": chunk_documents: expected never to fall and at most ", documents_, ", found ",
           first, " and ", last, " at ", first_chunk));
  offsets.resize(size_t(last - first + 1));
  read_offsets(first, int64_t(offsets.size()), offsets.data());
  const auto from = std::upper_bound(offsets.begin(), offsets.end(), begin);
  return {from, std::upper_bound(from, offsets.end(), end)};
}

const std::vector<int64_t>& ShardReader::offsets() const {
  const Hdf5Lock lock;
  std::vector<int64_t>& all = file_->all_offsets;
  if (all.empty()) {
    std::vector<int64_t> read(size_t(documents_ + 1));
    read_offsets(0, documents_ + 1, read.data());
    all = std::move(read);
  }
  return all;
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
  const int64_t begin = chunk * kShardChunk, count = std::min(tokens_ - begin, kShardChunk);
  f.cached_chunk = -1;  // until it is read without an error
  f.cache.resize(size_t(count));
  read_unchecked(begin, count, f.cache.data());
  uint32_t want = 0, want_largest = 0;
  read_range(path_, f.crc, "chunk_crc", H5T_STD_U32LE, chunk, 1, &want);
  read_range(path_, f.largest, "chunk_largest", H5T_STD_U32LE, chunk, 1, &want_largest);
  const int64_t crc = crc_of(f.cache);
  need(crc == want, cat(path_, ": tokens ", begin, " to ", begin + count, ": crc32 expected ", want,
                        ", found ", crc));
  const auto top = std::max_element(f.cache.begin(), f.cache.end(),
                                    [](int32_t a, int32_t b) { return uint32_t(a) < uint32_t(b); });
  need(uint32_t(*top) == want_largest,
       cat(path_, ": tokens ", begin, " to ", begin + count, ": largest id expected ", want_largest,
           ", found ", uint32_t(*top)));
  need(want_largest < uint64_t(info_.vocab_size),
       cat(path_, ": tokens: expected ids below ", info_.vocab_size, " (vocab_size), found ",
           want_largest, " at ", begin + (top - f.cache.begin())));
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
