// data/tokenizer/added_tokens.cpp -- a walk down the sorted contents, byte by byte.
#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/check.h"

namespace sluice {

void AddedTokens::add(const std::string& content, int32_t id_or_text) {
  SLUICE_CHECK(!content.empty(), "added token ", id_or_text, " is empty");
  const auto at =
      std::lower_bound(entries_.begin(), entries_.end(), content,
                       [](const Entry& e, const std::string& c) { return e.content < c; });
  SLUICE_CHECK(at == entries_.end() || at->content != content, "added token \"", content,
               "\" is given twice");
  entries_.insert(at, {content, id_or_text});
  finds_ |= id_or_text != kText;
  const uint8_t first = uint8_t(content[0]);
  only_ = entries_.size() == 1 || only_ == first ? first : -1;
  begins_[first] = true;
}

const AddedTokens::Entry* AddedTokens::longest_at(std::string_view text, size_t at) const {
  auto low = entries_.begin(), high = entries_.end();  // those that begin with the k bytes at `at`
  const Entry* longest = nullptr;
  for (size_t k = 0; low != high && at + k < text.size(); ++k) {
    const int byte = uint8_t(text[at + k]);
    const auto of = [&](const Entry& e) {
      return k < e.content.size() ? uint8_t(e.content[k]) : -1;
    };
    low = std::partition_point(low, high, [&](const Entry& e) { return of(e) < byte; });
    high = std::partition_point(low, high, [&](const Entry& e) { return of(e) == byte; });
    if (low != high && low->content.size() == k + 1) longest = &*low;
  }
  return longest;
}

AddedTokens::Found AddedTokens::next(std::string_view text, size_t at) const {
  for (; at < text.size(); ++at) {
    if (only_ >= 0) {
      const void* first = std::memchr(text.data() + at, only_, text.size() - at);
      if (!first) break;
      at = size_t(static_cast<const char*>(first) - text.data());
    } else if (!begins_[uint8_t(text[at])]) {
      continue;
    }
    if (const Entry* e = longest_at(text, at)) return {at, at + e->content.size(), e->id};
  }
  return {text.size(), text.size(), kText};
}

}  // namespace sluice
