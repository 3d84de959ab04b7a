// data/text/input_files.h -- which files the paths of a command line mean.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

enum class TextFormat : uint8_t { text, json_lines };

// .jsonl and .json are JSON lines, each also as .gz, .xz, .zst; whatever else is named is text.
struct InputFile {
  std::string path;  // "-": standard input
  TextFormat format;
  bool stream = false;  // standard input, a pipe: can be read once only
  // What tells it from another; all 0 for a stream.
  int64_t bytes = 0;        // as stored
  int64_t modified_ns = 0;  // since the epoch
  uint32_t head_crc = 0;    // crc32 of the first 64 KiB as stored
};

// Of every path in order: a file, a folder (the .txt, .jsonl and .json files below it, sorted by
// path), a pattern with *, ? or [...] (sorted), or "-" (standard input, in `stdin_format`). An
// existing file with such characters in its name is itself. Throws for what is missing, unreadable
// or without any text file, and for a file that is named twice
// (a link to it is its name too). Nothing is read of a pipe.
std::vector<InputFile> find_inputs(const std::vector<std::string>& paths, TextFormat stdin_format);

}  // namespace sluice
