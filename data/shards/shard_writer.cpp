// data/shards/shard_writer.cpp -- streams chunks and pages of tables; publishes by rename.
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "data/shards/hdf5_file.h"
#include "data/shards/shard.h"
#include "kernels/base/check.h"

namespace sluice {

struct ShardWriter::File {
  std::string temporary;  // empty once it is published
  H5Handle file, tokens, offsets, crc, largest, chunk_documents;
  bool narrow = false;  // u16

  // Why it failed; empty: it did not. Nothing is open afterwards.
  std::string close() {
    std::string reason;
    for (H5Handle* h : {&tokens, &offsets, &crc, &largest, &chunk_documents, &file})
      if (!h->close() && reason.empty()) reason = hdf5_reason();
    return reason;
  }
  ~File() {
    close();
    if (!temporary.empty()) unlink(temporary.c_str());
  }
};

ShardWriter::ShardWriter(const std::string& path, const ShardInfo& info)
    : path_(path), info_(info), file_(std::make_unique<File>()) {
  SLUICE_CHECK(info.vocab_size > 0 && info.vocab_size <= INT32_MAX, path, ": vocab_size is ",
               info.vocab_size);
  SLUICE_CHECK(info.end_of_text >= 0 && info.end_of_text < info.vocab_size, path,
               ": end_of_text is ", info.end_of_text, " in a vocabulary of ", info.vocab_size);
  SLUICE_CHECK(int64_t(info.token_bytes.size()) == info.vocab_size, info.token_bytes.size(),
               " byte counts for a vocabulary of ", info.vocab_size);
  File& f = *file_;
  f.temporary = path + ".tmp";
  f.narrow = info.vocab_size <= 65536;
  const Hdf5Lock lock;
  f.file = create_file(f.temporary);
  f.tokens = create_tokens(f.file, "tokens", f.narrow ? H5T_STD_U16LE : H5T_STD_U32LE, kShardChunk);
  f.offsets = create_table(f.file, "document_offsets", H5T_STD_I64LE);
  f.crc = create_table(f.file, "chunk_crc", H5T_STD_U32LE);
  f.largest = create_table(f.file, "chunk_largest", H5T_STD_U32LE);
  f.chunk_documents = create_table(f.file, "chunk_documents", H5T_STD_I64LE);
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::check(std::span<const int32_t> tokens) const {
  for (const int32_t id : tokens)
    SLUICE_CHECK(id >= 0 && id < info_.vocab_size, path_, ": token ", id, " of a vocabulary of ",
                 info_.vocab_size);
}

void ShardWriter::add_document(std::span<const int32_t> tokens) {
  check(tokens);  // all of them first: a refused document leaves nothing behind
  begin_document();
  for (const int32_t id : tokens) put(id);
}

void ShardWriter::begin_document() {
  SLUICE_CHECK(file_, path_, ": add_document() after finish()");
  offsets_.push_back(tokens_);
  put(info_.end_of_text);
  ++documents_;
  if (int64_t(offsets_.size()) == kTablePage) flush_tables();
}

void ShardWriter::add_tokens(std::span<const int32_t> tokens) {
  SLUICE_CHECK(file_ && documents_ > 0, path_, ": add_tokens() outside of a document");
  check(tokens);
  for (const int32_t id : tokens) put(id);
}

void ShardWriter::put(int32_t id) {
  // The document that begins here, if one does, is counted after its first token.
  if (chunk_.empty()) chunk_documents_.push_back(documents_);
  text_bytes_ += info_.token_bytes[size_t(id)];
  chunk_.push_back(uint32_t(id));
  ++tokens_;
  if (int64_t(chunk_.size()) == kShardChunk) flush_chunk();
}

void ShardWriter::flush_chunk() {
  if (chunk_.empty()) return;
  const Hdf5Lock lock;
  const auto* bytes = reinterpret_cast<const Bytef*>(chunk_.data());
  crc_.push_back(uint32_t(crc32_z(0, bytes, 4 * chunk_.size())));
  largest_.push_back(*std::max_element(chunk_.begin(), chunk_.end()));
  if (file_->narrow) {
    const std::vector<uint16_t> narrow(chunk_.begin(), chunk_.end());
    append(file_->temporary, file_->tokens, H5T_STD_U16LE, narrow.data(), int64_t(narrow.size()));
  } else {
    append(file_->temporary, file_->tokens, H5T_STD_U32LE, chunk_.data(), int64_t(chunk_.size()));
  }
  chunk_.clear();
  if (int64_t(crc_.size()) == kTablePage) flush_tables();
}

void ShardWriter::flush_tables() {
  const Hdf5Lock lock;
  append(file_->temporary, file_->offsets, H5T_STD_I64LE, offsets_.data(),
         int64_t(offsets_.size()));
  append(file_->temporary, file_->crc, H5T_STD_U32LE, crc_.data(), int64_t(crc_.size()));
  append(file_->temporary, file_->largest, H5T_STD_U32LE, largest_.data(),
         int64_t(largest_.size()));
  append(file_->temporary, file_->chunk_documents, H5T_STD_I64LE, chunk_documents_.data(),
         int64_t(chunk_documents_.size()));
  offsets_.clear();
  crc_.clear();
  largest_.clear();
  chunk_documents_.clear();
}

// Makes what is at `path`, a file or a folder, durable.
static void sync_path(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  SLUICE_CHECK(descriptor >= 0, path, ": ", std::strerror(errno));
  const int failed = fsync(descriptor), why = errno;
  close(descriptor);
  SLUICE_CHECK(failed == 0, path, ": fsync: ", std::strerror(why));
}

void ShardWriter::finish() {
  SLUICE_CHECK(file_, path_, ": finish() a second time");
  const Hdf5Lock lock;
  flush_chunk();
  offsets_.push_back(tokens_);
  chunk_documents_.push_back(documents_);
  flush_tables();
  const hid_t f = file_->file;
  write_all(f, "token_bytes", H5T_STD_U32LE, info_.token_bytes.data(), info_.vocab_size);
  write_attribute(f, "format_version", kShardVersion);
  write_attribute(f, "vocab_size", info_.vocab_size);
  write_attribute(f, "end_of_text", info_.end_of_text);
  write_attribute(f, "text_bytes", text_bytes_);
  write_attribute(f, "tokenizer", info_.tokenizer);
  const auto* bytes = reinterpret_cast<const Bytef*>(info_.token_bytes.data());
  write_attribute(f, "crc_token_bytes", int64_t(crc32_z(0, bytes, 4 * info_.token_bytes.size())));
  const std::string temporary = file_->temporary;
  if (const std::string reason = file_->close(); !reason.empty())
    throw Error(cat(temporary, ": ", reason));
  sync_path(temporary);
  SLUICE_CHECK(std::rename(temporary.c_str(), path_.c_str()) == 0, path_, ": ",
               std::strerror(errno));
  file_->temporary.clear();
  file_.reset();
  const size_t slash = path_.rfind('/');  // the new name is durable once its folder is
  sync_path(slash == std::string::npos ? "." : path_.substr(0, slash + 1));
}

}  // namespace sluice
