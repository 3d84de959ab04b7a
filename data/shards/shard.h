// data/shards/shard.h -- token shards: documents as token ids in one HDF5 file.
//
//   /tokens            [n] u16 or u32 (by vocabulary)   all documents, one after the other
//   /document_offsets  [documents + 1] i64
//   /token_bytes       [vocab] u32    bytes of text behind each id, 0 for specials
//   /chunk_crc         [ceil(n / 65536)] u32            crc32 of each chunk of tokens, as u32
//   attributes         format_version, vocab_size, end_of_text, text_bytes, tokenizer, crc_offsets,
//                      crc_token_bytes
//
// A document starts with end_of_text, and what is to be predicted after its last token is
// end_of_text again: every byte of text, and every end, is a target exactly once.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace sluice {

struct ShardInfo {
  int64_t vocab_size = 0;
  int32_t end_of_text = 0;
  std::string tokenizer;                // fingerprint
  std::vector<uint32_t> token_bytes{};  // [vocab_size]
};

// Writes PATH.tmp, which finish() makes PATH; without finish() nothing is left.
class ShardWriter {
 public:
  ShardWriter(const std::string& path, const ShardInfo& info);
  ~ShardWriter();

  void add_document(std::span<const int32_t> tokens);  // without end_of_text: it is put before
  void finish();

  int64_t documents() const { return int64_t(offsets_.size()) - 1; }
  int64_t tokens() const { return offsets_.back(); }

 private:
  struct File;
  void flush_chunk();

  std::string path_;
  ShardInfo info_;
  std::unique_ptr<File> file_;
  std::vector<uint32_t> chunk_, crc_;
  std::vector<int64_t> offsets_{0};
  int64_t text_bytes_ = 0;
};

// Opens without reading the tokens; each chunk is checked (crc, largest id) when first touched.
// Thread-safe.
class ShardReader {
 public:
  explicit ShardReader(const std::string& path);
  ~ShardReader();
  ShardReader(ShardReader&&) noexcept;

  const std::string& path() const { return path_; }
  const ShardInfo& info() const { return info_; }
  int64_t tokens() const { return offsets_.back(); }
  int64_t documents() const { return int64_t(offsets_.size()) - 1; }
  int64_t text_bytes() const { return text_bytes_; }
  const std::vector<int64_t>& offsets() const { return offsets_; }

  void read(int64_t begin, int64_t count, int32_t* out) const;

 private:
  struct File;
  void read_unchecked(int64_t begin, int64_t count, int32_t* out) const;
  void read_frame();
  void check_frame(int64_t tokens) const;
  void load_chunk(int64_t chunk) const;  // into the cache, checked

  std::string path_;
  ShardInfo info_;
  std::vector<int64_t> offsets_;
  std::vector<uint32_t> crc_;
  int64_t text_bytes_ = 0;
  std::unique_ptr<File> file_;
};

constexpr int64_t kShardChunk = 65536;  // tokens

}  // namespace sluice
