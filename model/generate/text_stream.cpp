// model/generate/text_stream.cpp -- the longest ends of what has come that must wait.
#include "model/generate/text_stream.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"

namespace sluice {

// Bytes at the end of `text` that begin a UTF-8 character without completing it. Bytes that are no
// UTF-8 at all do not wait.
static size_t incomplete_character(std::string_view text) {
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const auto byte = static_cast<unsigned char>(text[text.size() - n]);
    if ((byte & 0xC0) == 0x80) continue;  // goes on
    const size_t length = byte >= 0xF0 && byte <= 0xF4   ? 4
                          : byte >= 0xE0 && byte <= 0xEF ? 3
                          : byte >= 0xC2 && byte <= 0xDF ? 2
                                                         : 1;
    return length > n ? n : 0;
  }
  return 0;
}

// The longest end of `text` that is a beginning of `stop`.
static size_t begun(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  return 0;
}

TextStream::TextStream(std::vector<std::string> stop_strings)
    : stop_strings_(std::move(stop_strings)) {
  for (const std::string& s : stop_strings_) SLUICE_CHECK(!s.empty(), "a stop string is empty");
}

std::string TextStream::push(std::string_view bytes) {
  if (stopped_) return "";
  held_ += bytes;
  size_t end = std::string::npos, waiting = incomplete_character(held_);
  for (const std::string& stop : stop_strings_) {
    end = std::min(end, held_.find(stop));
    waiting = std::max(waiting, begun(held_, stop));
  }
  stopped_ = end != std::string::npos;
  if (!stopped_) end = held_.size() - waiting;
  std::string shown = held_.substr(0, end);
  held_.erase(0, stopped_ ? held_.size() : end);
  return shown;
}

std::string TextStream::finish() {
  const size_t cut = incomplete_character(held_);
  std::string shown = std::exchange(held_, "");
  if (cut > 0) shown.replace(shown.size() - cut, cut, "\xEF\xBF\xBD");
  return shown;
}

}  // namespace sluice
