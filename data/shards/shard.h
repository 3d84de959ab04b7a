// data/shards/shard.h -- token shards: documents as token ids in one HDF5 file.
//
//   /tokens            [n] u16 or u32 (by vocabulary)   all documents, one after the other
//   /document_offsets  [documents + 1] i64              where each begins; the last is n
//   /chunk_crc         [chunks] u32      crc32 of each chunk of 65536 tokens, as u32
//   /chunk_largest     [chunks] u32      the largest id in it
//   /chunk_documents   [chunks + 1] i64  how many documents begin before it; the last: all
//   /token_bytes       [vocab] u32       bytes of text behind each id, 0 for specials
//   attributes         format_version (2), vocab_size, end_of_text, text_bytes, tokenizer,
//                      crc_token_bytes
//
// A document starts with end_of_text, and what is to be predicted after its last token is
// end_of_text again: every byte of text, and every end, is a target exactly once. Offsets and chunk
// tables have HDF5's own checksums, since they are read by pages and not as a whole.
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

// Writes PATH.tmp, which finish() makes PATH; without finish() nothing is left. Memory does not
// grow with what is written, and equal documents make equal files, to the byte.
class ShardWriter {
 public:
  ShardWriter(const std::string& path, const ShardInfo& info);
  ~ShardWriter();

  void add_document(std::span<const int32_t> tokens);  // without end_of_text: it is put before
  // The same in parts, for documents of any length: the next one, or finish(), ends it.
  void begin_document();
  void add_tokens(std::span<const int32_t> tokens);
  void finish();

  int64_t documents() const { return documents_; }
  int64_t tokens() const { return tokens_; }
  int64_t text_bytes() const { return text_bytes_; }

 private:
  struct File;
  void check(std::span<const int32_t> tokens) const;
  void put(int32_t id);
  void flush_chunk();
  void flush_tables();

  std::string path_;
  ShardInfo info_;
  std::unique_ptr<File> file_;
  // What is not yet in the file: a chunk of tokens, and pages of the tables.
  std::vector<uint32_t> chunk_, crc_, largest_;
  std::vector<int64_t> offsets_, chunk_documents_;
  int64_t documents_ = 0, tokens_ = 0, text_bytes_ = 0;
};

// Opens without reading tokens or offsets, whatever the size. Each chunk of tokens is checked (crc,
// largest id) when first touched. Thread-safe.
class ShardReader {
 public:
  explicit ShardReader(const std::string& path);
  ~ShardReader();
  ShardReader(ShardReader&&) noexcept;

  const std::string& path() const { return path_; }
  const ShardInfo& info() const { return info_; }
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  int64_t text_bytes() const { return text_bytes_; }

  void read(int64_t begin, int64_t count, int32_t* out) const;
  // Entries `first` ... of document_offsets, which has documents() + 1.
  void read_offsets(int64_t first, int64_t count, int64_t* out) const;
  // The ends of documents that are above `begin` and not above `end` (in tokens), rising.
  std::vector<int64_t> document_ends(int64_t begin, int64_t end) const;
  // All offsets: 8 bytes a document, read at the first call. For what cannot go by pages.
  const std::vector<int64_t>& offsets() const;

 private:
  struct File;
  void read_unchecked(int64_t begin, int64_t count, int32_t* out) const;
  void open_tables();
  void check_frame() const;
  void load_chunk(int64_t chunk) const;  // into the cache, checked

  std::string path_;
  ShardInfo info_;
  int64_t tokens_ = 0, documents_ = 0, text_bytes_ = 0;
  std::unique_ptr<File> file_;
};

constexpr int64_t kShardChunk = 65536;  // tokens
constexpr int64_t kShardVersion = 2;

}  // namespace sluice
