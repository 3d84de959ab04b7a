// data/text/blocks.h -- inputs of any size as blocks of about a megabyte, cut where nothing depends
// on what is on the other side.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/byte_source.h"
#include "data/text/hold_out.h"
#include "data/text/input_files.h"
#include "kernels/base/check.h"

namespace sluice {

enum class TextSplit : uint8_t {
  whole,        // one document a file
  blank_lines,  // a document ends at one or more empty lines, which belong to none
};

struct TextOptions {
  TextSplit split = TextSplit::whole;  // of text files
  std::string field = "text";          // of JSON lines: the string to take, one document a line
};

// Where reading stands, always between two blocks.
struct Place {
  int64_t input = 0;           // index of the file
  int64_t byte = 0, line = 1;  // in its text, decompressed; lines count from 1
  uint32_t crc = 0;            // crc32 of the text before
  bool inside = false;         // of a document, which is
  bool held_out = false;       // held out
};

struct Block {
  Place begin, end;
  std::string text;
  bool mid_line = false;         // it starts inside of a line
  std::optional<bool> held_out;  // of all of it; none: each document by its hash
  int64_t file_bytes = 0;        // read so far, as stored, of all inputs: for progress
};

// Where a long document may be cut in two so that the tokens of both parts are the tokens of the
// whole: before a blank or a newline that no pre-tokenizer joins with what is before it (a blank
// starts a word; a newline may belong to punctuation before it, but not to a letter). The last such
// place in `text` that is not 0; 0 if there is none.
size_t last_safe_cut(std::string_view text);

class BlockReader {
 public:
  static constexpr size_t kBlockBytes = 1 << 20;
  // A line of JSON, or a stretch of text without a place to cut, may have this many bytes.
  static constexpr size_t kLargestPiece = size_t(1) << 27;

  // From `start` on: what is before it in its file is read, compared with its crc, and dropped.
  BlockReader(std::vector<InputFile> inputs, const TextOptions& options, const HoldOut& hold_out,
              const Place& start = {});
  bool next(Block& block);  // false: there is no more

 private:
  void open_input();
  void skip_to(const Place& start);
  void fill(size_t bytes);  // until buffer_ has as many, or the file ends
  void enter_tail();
  size_t cut_lines();                          // how much of buffer_ the next block takes, and
  size_t cut_text(bool& inside);               // whether it ends inside of a document
  Error error(const std::string& what) const;  // at the first byte of buffer_

  std::vector<InputFile> inputs_;
  TextOptions options_;
  HoldOut hold_out_;
  std::optional<TailCut> tail_;
  std::unique_ptr<ByteSource> source_;
  std::string buffer_;  // read, not yet given
  Place place_;         // of the buffer's first byte
  bool source_ended_ = false, mid_line_ = false;
  int64_t stored_before_ = 0;  // of the files that are done
};

}  // namespace sluice
