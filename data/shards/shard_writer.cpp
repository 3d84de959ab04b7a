// data/shards/shard_writer.cpp -- streams chunks; publishes by rename.
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "data/shards/hdf5_file.h"
#include "data/shards/shard.h"
#include "kernels/base/check.h"

namespace sluice {

struct ShardWriter::File {
  std::string temporary;
  H5Handle file, tokens;
  bool narrow;  // u16
};

ShardWriter::ShardWriter(const std::string& path, const ShardInfo& info)
    : path_(path), info_(info), file_(std::make_unique<File>()) {
  silence_hdf5();
  SLUICE_CHECK(int64_t(info.token_bytes.size()) == info.vocab_size, info.token_bytes.size(),
               " byte counts for a vocabulary of ", info.vocab_size);
  file_->temporary = path + ".tmp";
  file_->narrow = info.vocab_size <= 65536;
  file_->file = H5Handle(
      H5Fcreate(file_->temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  SLUICE_CHECK(file_->file.ok(), file_->temporary, ": cannot be created: ", std::strerror(errno));
  file_->tokens =
      create_dataset(file_->file, "tokens", file_->narrow ? H5T_STD_U16LE : H5T_STD_U32LE);
}

ShardWriter::~ShardWriter() {
  if (!file_) return;
  const std::string temporary = file_->temporary;
  file_.reset();
  unlink(temporary.c_str());
}

void ShardWriter::add_document(std::span<const int32_t> tokens) {
  auto add = [&](int32_t id) {
    SLUICE_CHECK(id >= 0 && id < info_.vocab_size, "token ", id, " of a vocabulary of ",
                 info_.vocab_size);
    text_bytes_ += info_.token_bytes[size_t(id)];
    chunk_.push_back(uint32_t(id));
    if (int64_t(chunk_.size()) == kShardChunk) flush_chunk();
  };
  add(info_.end_of_text);
  for (const int32_t id : tokens) add(id);
  offsets_.push_back(offsets_.back() + 1 + int64_t(tokens.size()));
}

void ShardWriter::flush_chunk() {
  if (chunk_.empty()) return;
  crc_.push_back(uint32_t(crc32(0, reinterpret_cast<const Bytef*>(chunk_.data()),
                                uInt(chunk_.size() * sizeof(uint32_t)))));
  if (file_->narrow) {
    const std::vector<uint16_t> narrow(chunk_.begin(), chunk_.end());
    append(file_->tokens, H5T_STD_U16LE, narrow.data(), int64_t(narrow.size()));
  } else {
    append(file_->tokens, H5T_STD_U32LE, chunk_.data(), int64_t(chunk_.size()));
  }
  chunk_.clear();
}

void ShardWriter::finish() {
  flush_chunk();
  const hid_t f = file_->file;
  write_all(f, "document_offsets", H5T_STD_I64LE, offsets_.data(), int64_t(offsets_.size()));
  write_all(f, "token_bytes", H5T_STD_U32LE, info_.token_bytes.data(), info_.vocab_size);
  write_all(f, "chunk_crc", H5T_STD_U32LE, crc_.data(), int64_t(crc_.size()));
  write_attribute(f, "format_version", 1);
  write_attribute(f, "vocab_size", info_.vocab_size);
  write_attribute(f, "end_of_text", info_.end_of_text);
  write_attribute(f, "text_bytes", text_bytes_);
  write_attribute(f, "tokenizer", info_.tokenizer);
  write_attribute(f, "crc_offsets",
                  int64_t(crc32(0, reinterpret_cast<const Bytef*>(offsets_.data()),
                                uInt(offsets_.size() * sizeof(int64_t)))));
  const std::string temporary = file_->temporary;
  const bool flushed = H5Fflush(f, H5F_SCOPE_GLOBAL) >= 0;
  file_->tokens = H5Handle();
  file_->file = H5Handle();
  const int descriptor = open(temporary.c_str(), O_RDONLY);
  const bool synced = descriptor >= 0 && fsync(descriptor) == 0;
  if (descriptor >= 0) close(descriptor);
  SLUICE_CHECK(flushed && synced, temporary, ": ", std::strerror(errno));
  SLUICE_CHECK(std::rename(temporary.c_str(), path_.c_str()) == 0, path_, ": ", std::strerror(errno));
  file_.reset();
}

}  // namespace sluice
