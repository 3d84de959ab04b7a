// data/text/documents.h -- documents from text files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

enum class TextSplit : uint8_t {
  whole,        // one document a file
  blank_lines,  // a document ends at one or more empty lines, which belong to none
};

struct TextOptions {
  TextSplit split = TextSplit::whole;  // of .txt files
  std::string field = "text";          // of .jsonl files: the string to take, one document a line
};

// .jsonl (or .json lines) by name, anything else is text. Bytes are kept as they are. Throws with
// file (and line) for what cannot be read.
std::vector<std::string> read_documents(const std::string& path, const TextOptions& options);

struct HeldOut {
  std::vector<std::string> train, valid;
};
// The last `fraction` of all bytes becomes `valid`; the document that the cut meets is cut in two,
// before the UTF-8 character that the cut would split.
HeldOut hold_out_tail(std::vector<std::string> documents, double fraction);

}  // namespace sluice
