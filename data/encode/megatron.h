// data/encode/megatron.h -- token shards from the PREFIX.bin and PREFIX.idx of Megatron-LM's
// indexed data sets, without encoding anything again.
//
// PREFIX.idx, little-endian:
//   "MMIDIDX\0\0"  u64 version (1)  u8 type code  u64 sequences  u64 entries of the document index
//   i32 length of each sequence in tokens
//   i64 where each sequence begins in PREFIX.bin, in bytes
//   i64 the document index: the first sequence of each document, and at last the sequence count
// Type codes: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16 (6 and 7, f64 and f32, are no tokens).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/tokenizer/tokenizer.h"

namespace sluice {

struct MegatronImport {
  int64_t documents = 0, tokens = 0, text_bytes = 0;
  int64_t ended = 0;  // documents whose last token was end_of_text, which the shard's form implies
};

// Throws, with file and byte, for an index that is none or promises what PREFIX.bin does not have,
// and for ids outside of the vocabulary. Nothing is left of an import that fails; a killed one
// starts over and replaces its OUT.tmp.
MegatronImport import_megatron(const std::string& prefix, const Tokenizer& tokenizer,
                               const std::string& out,
                               const std::function<void(int64_t done, int64_t all)>& progress = {});

}  // namespace sluice
