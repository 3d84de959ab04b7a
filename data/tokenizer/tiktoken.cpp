// data/tokenizer/tiktoken.cpp -- merges from ranks.
//
// tiktoken keeps no merges: it joins the two neighbours whose bytes together have the lowest rank.
// A token of rank r is what merging makes of its own bytes with the ranks below r, when two pieces
// are left: no other two neighbours become it, since what happens between two borders of a word
// does not depend on what is around. A token that is made differently is refused; one that no
// merge makes is reached only as a whole word, which tiktoken looks up first (ignore_merges).
#include <cerrno>
#include <cstring>
#include <fstream>

#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace sluice {

// The bytes of strict base64 with padding; false if it is none.
static bool from_base64(std::string_view text, std::string& out) {
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  out.clear();
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  for (size_t i = 0; i < text.size(); i += 4) {
    const size_t pads = i + 4 == text.size() ? padding : 0;
    uint32_t bits = 0;
    for (size_t k = 0; k < 4; ++k) {
      const size_t six = k < 4 - pads ? alphabet.find(text[i + k]) : 0;
      if (six == std::string_view::npos) return false;
      bits = bits << 6 | uint32_t(six);
    }
    if (pads > 0 && (bits & (pads == 2 ? 0xFFFF : 0xFF)) != 0) return false;
    for (size_t k = 0; k < 3 - pads; ++k) out += char(bits >> (16 - 8 * k) & 0xFF);
  }
  return true;
}

template <class... Parts>
static void require(bool ok, const Parts&... message) {
  if (!ok) throw Error(cat(message...));
}

class TiktokenReader {
 public:
  TiktokenReader(const std::string& path, const std::string& pattern)
      : path_(path), t_(PreTokenizer(pattern)) {}

  Tokenizer read(const std::vector<std::pair<int32_t, std::string>>& specials) {
    read_ranks();
    for (const auto& [id, content] : specials) {
      require(id >= 0 && id < kMaxTokens, "special token ", content, ": id ", id);
      if (id >= t_.vocab_size()) t_.bytes_.resize(size_t(id) + 1), line_.resize(size_t(id) + 1);
      require(line_[size_t(id)] == 0, path_, ":", line_[size_t(id)], ": rank ", id,
              " is the id of special token ", content, " too");
      line_[size_t(id)] = -1;
      t_.add_token({.id = id, .content = content});
    }
    for (size_t id = 0; id < line_.size(); ++id)
      require(line_[id] != 0, path_, ": expected a token for each rank up to ", line_.size() - 1,
              ", got none for ", id, "; special tokens are not in the file");
    for (int b = 0; b < 256; ++b)
      require(t_.of_byte_[size_t(b)] >= 0, path_, ": byte ", b, " has no token");
    for (int32_t id = 0; id < t_.vocab_size(); ++id)
      if (t_.bytes_[size_t(id)].size() > 1) recover_merge(id);
    t_.ignore_merges_ = true;
    t_.finish();
    return std::move(t_);
  }

 private:
  static constexpr int32_t kMaxTokens = 1 << 24;  // a table is indexed with it

  void read_ranks() {
    std::ifstream in(path_, std::ios::binary);
    require(bool(in), path_, ": ", std::strerror(errno));
    std::string line, bytes;
    for (int32_t number = 1; std::getline(in, line); ++number) {
      if (line.empty()) continue;
      const auto refuse = [&](const std::string& expected) {
        throw Error(
            cat(path_, ":", number, ": expected ", expected, ", got \"", line.substr(0, 80), "\""));
      };
      const size_t space = line.find(' ');
      if (space == std::string::npos || !from_base64(line.substr(0, space), bytes))
        refuse("a token in base64, a space and a rank");
      const std::string digits = line.substr(space + 1);
      if (digits.empty() || digits.size() > 8 ||
          digits.find_first_not_of("0123456789") != std::string::npos)
        refuse("a rank of digits after the token");
      const int32_t rank = int32_t(std::stol(digits));
      if (rank >= kMaxTokens) refuse(cat("a rank below ", kMaxTokens));
      if (const auto [old, fresh] = ranks_.emplace(bytes, rank); !fresh)
        refuse(cat("a new token, not that of rank ", old->second));
      if (rank >= t_.vocab_size())
        t_.bytes_.resize(size_t(rank) + 1), line_.resize(size_t(rank) + 1);
      if (line_[size_t(rank)] != 0)
        refuse(cat("a new rank, not that of line ", line_[size_t(rank)]));
      line_[size_t(rank)] = number;
      t_.bytes_[size_t(rank)] = bytes;
      if (bytes.size() == 1) t_.of_byte_[uint8_t(bytes[0])] = rank;
    }
  }

  // In the order of ranks, so the merges below `rank` are there.
  void recover_merge(int32_t rank) {
    const std::string& bytes = t_.bytes_[size_t(rank)];
    std::vector<int32_t> ids;
    for (const char c : bytes) ids.push_back(t_.of_byte_[uint8_t(c)]);
    for (;;) {
      MergeTable::Merge best{kNoRank, -1};
      size_t at = 0;
      for (size_t i = 0; i + 1 < ids.size(); ++i)
        if (const auto m = t_.merges_.find(ids[i], ids[i + 1]); m.rank < best.rank)
          best = m, at = i;
      if (best.made < 0) break;
      ids[at] = best.made;
      ids.erase(ids.begin() + int64_t(at) + 1);
    }
    if (ids.size() == 2) {
      t_.merges_.add(ids[0], ids[1], rank);
      return;
    }
    for (size_t cut = 1; cut < bytes.size(); ++cut)
      require(!ranks_.count(bytes.substr(0, cut)) || !ranks_.count(bytes.substr(cut)), path_, ":",
              line_[size_t(rank)], ": expected a token that two tokens of lower rank make, got ",
              ids.size(), " pieces: merges cannot say when tiktoken would make it");
  }

  std::string path_;
  Tokenizer t_;
  std::unordered_map<std::string, int32_t> ranks_;
  std::vector<int32_t> line_;  // by rank; 0: none, -1: a special token
};

Tokenizer Tokenizer::load_tiktoken(const std::string& path, const std::string& pattern,
                                   const std::vector<std::pair<int32_t, std::string>>& specials) {
  return TiktokenReader(path, pattern).read(specials);
}

}  // namespace sluice
