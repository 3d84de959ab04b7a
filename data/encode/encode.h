// data/encode/encode.h -- text of any size to token shards: parallel, in bounded memory, and after
// a kill it goes on where it was.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/shards/shard.h"
#include "data/text/blocks.h"
#include "data/tokenizer/tokenizer.h"

namespace sluice {

struct EncodeJob {
  std::vector<InputFile> inputs;
  TextOptions text;
  HoldOut hold_out;
  std::string out, held_out_out;  // shards; the second one if something is held out
  int threads = 1;                // of no influence on the result
  double commit_seconds = 5;      // so much work at most is lost by a kill
};

struct EncodeProgress {
  int64_t file_bytes = 0;  // read, as stored
  int64_t text_bytes = 0;  // encoded
  int64_t documents = 0, tokens = 0;
};

struct EncodeResult {
  bool finished = false;          // false: stopped; OUT.partial has what is done
  int64_t resumed_at = 0;         // bytes of text that an earlier, killed run had done
  EncodeProgress kept, held_out;  // of the shards
};

ShardInfo shard_info(const Tokenizer& tokenizer);

// Equal inputs, options and tokenizer make equal files, to the byte, whatever `threads` is and
// however often it was killed. An error of the inputs leaves nothing behind. An interruption
// (stop() became true, a kill) leaves OUT.partial, and so does, once there is a commit in it, a
// write that fails (a full disk).
EncodeResult encode(const EncodeJob& job, const Tokenizer& tokenizer,
                    const std::function<void(const EncodeProgress&)>& progress = {},
                    const std::function<bool()>& stop = {});

}  // namespace sluice
