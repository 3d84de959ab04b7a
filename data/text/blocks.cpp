// data/text/blocks.cpp -- where blocks end.
#include "data/text/blocks.h"

#include <zlib.h>

#include <algorithm>

namespace sluice {

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Judges the character that ends before `at` by its first byte: E1, E2, E3 and C2 have white space
// among theirs; D0, D1 (Cyrillic) and E5 to E8 (Chinese) nothing but letters.
static bool safe_cut(std::string_view text, size_t at) {
  const bool blank = text[at] == ' ';
  if (!blank && text[at] != '\n') return false;
  const auto before = uint8_t(text[at - 1]);
  if (before < 0x80) return blank ? before > ' ' && before < 0x7f : is_letter(char(before));
  size_t first = at - 1;
  while (first > 0 && at - first < 4 && (text[first] & 0xC0) == 0x80) --first;
  const auto lead = uint8_t(text[first]);
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (length != at - first) return false;  // no valid character
  if (blank) return lead != 0xC2 && (lead < 0xE1 || lead > 0xE3);
  return lead == 0xD0 || lead == 0xD1 || (lead >= 0xE5 && lead <= 0xE8);
}

size_t last_safe_cut(std::string_view text) {
  for (size_t at = text.size(); at-- > 1;)
    if (safe_cut(text, at)) return at;
  return 0;
}

// Where the first (last) empty line of `text` ends; npos: there is none.
static bool ends_empty_line(std::string_view text, size_t newline, bool mid_line) {
  size_t end = newline;
  if (end > 0 && text[end - 1] == '\r') --end;
  return end == 0 ? !mid_line : text[end - 1] == '\n';
}
static size_t after_first_empty_line(std::string_view text, bool mid_line) {
  for (size_t at = text.find('\n'); at != text.npos; at = text.find('\n', at + 1))
    if (ends_empty_line(text, at, mid_line)) return at + 1;
  return text.npos;
}
static size_t after_last_empty_line(std::string_view text, bool mid_line) {
  for (size_t at = text.rfind('\n'); at != text.npos;
       at = at > 0 ? text.rfind('\n', at - 1) : text.npos)
    if (ends_empty_line(text, at, mid_line)) return at + 1;
  return text.npos;
}

BlockReader::BlockReader(std::vector<InputFile> inputs, const TextOptions& options,
                         const HoldOut& hold_out, const Place& start)
    : inputs_(std::move(inputs)), options_(options), hold_out_(hold_out) {
  SLUICE_CHECK(start.input >= 0 && start.input <= int64_t(inputs_.size()), "input ", start.input,
               " of ", inputs_.size());
  if (hold_out_.by == HoldOut::By::tail) tail_ = find_tail(inputs_, options_, hold_out_.fraction);
  for (int64_t i = 0; i < start.input; ++i) stored_before_ += inputs_[size_t(i)].bytes;
  place_.input = start.input;
  if (start.byte > 0) skip_to(start);
  place_ = start;
  mid_line_ = start.inside;
}

Error BlockReader::error(const std::string& what) const {
  const std::string& path = inputs_[size_t(place_.input)].path;
  return Error(cat(path == "-" ? "standard input" : path, ": ", what));
}

void BlockReader::open_input() {
  source_ = std::make_unique<ByteSource>(inputs_[size_t(place_.input)].path);
  source_ended_ = false;
  buffer_.clear();
}

void BlockReader::skip_to(const Place& start) {
  open_input();
  uint32_t crc = 0;
  for (int64_t left = start.byte; left > 0;) {
    fill(size_t(std::min(left, int64_t(kBlockBytes))));
    if (buffer_.empty()) break;
    crc = uint32_t(crc32_z(crc, reinterpret_cast<const Bytef*>(buffer_.data()), buffer_.size()));
    left -= int64_t(buffer_.size());
    buffer_.clear();
    if (left == 0 && crc == start.crc) return;
  }
  throw error(cat("its first ", start.byte, " bytes of text are others than before"));
}

void BlockReader::fill(size_t bytes) {
  while (buffer_.size() < bytes && !source_ended_) {
    const size_t before = buffer_.size();
    buffer_.resize(bytes);
    const size_t n = source_->read(buffer_.data() + before, bytes - before);
    buffer_.resize(before + n);
    source_ended_ = n == 0;
  }
}

size_t BlockReader::cut_lines() {
  for (size_t want = kBlockBytes;; want *= 2) {
    fill(want);
    if (source_ended_) return buffer_.size();
    if (const size_t newline = buffer_.rfind('\n'); newline != buffer_.npos) return newline + 1;
    if (want >= kLargestPiece)
      throw error(
          cat("line ", place_.line, ": expected at most ", kLargestPiece, " bytes, found more"));
  }
}

size_t BlockReader::cut_text(bool& inside) {
  const bool blank_lines = options_.split == TextSplit::blank_lines;
  const bool was_inside = inside;
  for (size_t want = kBlockBytes;; want *= 2) {
    fill(want);
    std::string_view text = std::string_view(buffer_).substr(0, want);
    bool ended = source_ended_ && text.size() == buffer_.size();
    if (tail_ && tail_->input == place_.input && tail_->byte > place_.byte) {
      const auto left = size_t(tail_->byte - place_.byte);
      ended = ended || text.size() >= left;
      text = text.substr(0, left);
    }
    inside = false;
    if (blank_lines && (was_inside || !ended)) {
      const size_t cut = was_inside ? after_first_empty_line(text, mid_line_)
                                    : after_last_empty_line(text, mid_line_);
      if (cut != text.npos) return cut;
    }
    if (ended) return text.size();
    inside = true;
    if (const size_t cut = last_safe_cut(text); cut > 0) return cut;
    if (want >= kLargestPiece)
      throw error(
          cat("byte ", place_.byte, ": found ", want,
              " bytes without a blank after a character, or a newline after a letter, and no "
              "end of the document: expected text"));
  }
}

bool BlockReader::next(Block& block) {
  for (; place_.input < int64_t(inputs_.size());) {
    if (!source_) open_input();
    const InputFile& input = inputs_[size_t(place_.input)];
    if (tail_ && tail_->input == place_.input && tail_->byte == place_.byte && !place_.held_out) {
      place_.held_out = true;
      place_.inside = false;
      mid_line_ = tail_->mid_line;
    }
    bool inside = place_.inside;
    const size_t n = input.format == TextFormat::json_lines ? cut_lines() : cut_text(inside);
    if (n == 0) {
      if (place_.byte == 0) throw error("expected text, found an empty file");
      stored_before_ += input.bytes;
      source_.reset();
      const bool held_out = tail_ && place_.held_out;
      place_ = {.input = place_.input + 1, .held_out = held_out};
      mid_line_ = false;
      continue;
    }
    const bool goes_on = inside && !place_.inside;  // a document begins here that the block cuts
    if (goes_on && hold_out_.by == HoldOut::By::hash)
      place_.held_out = held_out_by_hash(hold_out_, buffer_);
    block.begin = place_;
    block.mid_line = mid_line_;
    block.text = buffer_.substr(0, n);
    buffer_.erase(0, n);
    const auto* bytes = reinterpret_cast<const Bytef*>(block.text.data());
    place_.crc = uint32_t(crc32_z(place_.crc, bytes, n));
    place_.byte += int64_t(n);
    place_.line += std::count(block.text.begin(), block.text.end(), '\n');
    const bool by_hash = hold_out_.by == HoldOut::By::hash && !place_.inside && !inside;
    block.held_out = by_hash ? std::nullopt : std::optional(place_.held_out);
    place_.inside = mid_line_ = inside;
    block.end = place_;
    block.file_bytes = stored_before_ + source_->consumed();
    return true;
  }
  return false;
}

}  // namespace sluice
