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
  SLUICE_CHECK(info.vocab_size > 0 && info.vocab_size <= INT32_MAX, path, ": vocab_size is ",
               info.vocab_size);
  SLUICE_CHECK(info.end_of_text >= 0 && info.end_of_text < info.vocab_size, path,
               ": end_of_text is ", info.end_of_text, " in a vocabulary of ", info.vocab_size);
  SLUICE_CHECK(int64_t(info.token_bytes.size()) == info.vocab_size, info.token_bytes.size(),
               " byte counts for a vocabulary of ", info.vocab_size);
  file_->temporary = path + ".tmp";
  file_->narrow = info.vocab_size <= 65536;
  const Hdf5Lock lock;
  file_->file = create_file(file_->temporary);
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
  SLUICE_CHECK(file_, path_, ": add_document() after finish()");
  for (const int32_t id : tokens)  // all of them first: a refused document leaves nothing behind
    SLUICE_CHECK(id >= 0 && id < info_.vocab_size, path_, ": token ", id, " of a vocabulary of ",
                 info_.vocab_size);
  auto add = [&](int32_t id) {
    text_bytes_ += info_.token_bytes[size_t(id)];
    chunk_.push_back(uint32_t(id));
    if (int64_t(chunk_.size()) == kShardChunk) flush_chunk();
  };
  add(info_.end_of_text);
  for (const int32_t id : tokens) add(id);
  offsets_.push_back(offsets_.back() + 1 + int64_t(tokens.size()));
}

template <class T>
static uint32_t crc_of(const std::vector<T>& v) {
  return uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(v.data()), v.size() * sizeof(T)));
}

void ShardWriter::flush_chunk() {
  if (chunk_.empty()) return;
  const Hdf5Lock lock;
  crc_.push_back(crc_of(chunk_));
  if (file_->narrow) {
    const std::vector<uint16_t> narrow(chunk_.begin(), chunk_.end());
    append(file_->tokens, H5T_STD_U16LE, narrow.data(), int64_t(narrow.size()));
  } else {
    append(file_->tokens, H5T_STD_U32LE, chunk_.data(), int64_t(chunk_.size()));
  }
  chunk_.clear();
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
  const hid_t f = file_->file;
  write_all(f, "document_offsets", H5T_STD_I64LE, offsets_.data(), int64_t(offsets_.size()));
  write_all(f, "token_bytes", H5T_STD_U32LE, info_.token_bytes.data(), info_.vocab_size);
  write_all(f, "chunk_crc", H5T_STD_U32LE, crc_.data(), int64_t(crc_.size()));
  write_attribute(f, "format_version", 1);
  write_attribute(f, "vocab_size", info_.vocab_size);
  write_attribute(f, "end_of_text", info_.end_of_text);
  write_attribute(f, "text_bytes", text_bytes_);
  write_attribute(f, "tokenizer", info_.tokenizer);
  write_attribute(f, "crc_offsets", crc_of(offsets_));
  write_attribute(f, "crc_token_bytes", crc_of(info_.token_bytes));
  const std::string temporary = file_->temporary;
  const bool tokens_closed = file_->tokens.close(), file_closed = file_->file.close();
  SLUICE_CHECK(tokens_closed && file_closed, temporary, ": cannot be closed: ", hdf5_reason());
  sync_path(temporary);
  SLUICE_CHECK(std::rename(temporary.c_str(), path_.c_str()) == 0, path_, ": ",
               std::strerror(errno));
  file_.reset();
  const size_t slash = path_.rfind('/');  // the new name is durable once its folder is
  sync_path(slash == std::string::npos ? "." : path_.substr(0, slash + 1));
}

}  // namespace sluice
