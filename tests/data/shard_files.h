// tests/data/shard_files.h -- small shards of made-up documents.
#pragma once

#include <string>
#include <vector>

#include "data/shards/shard.h"
#include "kernels/tensor/rng.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"

namespace sluice::test {

// end_of_text is the last id; id i decodes to 1 + i % 7 bytes.
inline ShardInfo info_of(int64_t vocab_size) {
  ShardInfo info{vocab_size, int32_t(vocab_size - 1), "test-tokenizer"};
  for (int64_t i = 0; i < vocab_size; ++i) info.token_bytes.push_back(uint32_t(1 + i % 7));
  info.token_bytes.back() = 0;
  return info;
}

using Documents = std::vector<std::vector<int32_t>>;

// Lengths from 1 to max_length, ids below vocab_size - 1; a pure function of the arguments.
inline Documents make_documents(int64_t count, int64_t max_length, int64_t vocab_size) {
  Documents out;
  for (uint64_t d = 0; d < uint64_t(count); ++d) {
    std::vector<int32_t>& tokens = out.emplace_back();
    const uint64_t length = 1 + random_u64(7, d) % uint64_t(max_length);
    for (uint64_t i = 0; i < length; ++i)
      tokens.push_back(int32_t(random_u64(8 + d, i) % uint64_t(vocab_size - 1)));
  }
  return out;
}

inline void write_shard(const std::string& path, const ShardInfo& info,
                        const Documents& documents) {
  ShardWriter writer(path, info);
  for (const auto& d : documents) writer.add_document(d);
  writer.finish();
}

// What the file should hold: every document with end_of_text before it.
inline std::vector<int32_t> stream_of(const Documents& documents, int32_t end_of_text) {
  std::vector<int32_t> out;
  for (const auto& d : documents) {
    out.push_back(end_of_text);
    out.insert(out.end(), d.begin(), d.end());
  }
  return out;
}

}  // namespace sluice::test
