// trainer/export/gguf_vocabulary.cpp -- names of pre-tokenizers, tokens, merges.
#include "trainer/export/gguf_vocabulary.h"

#include <algorithm>
#include <unordered_set>

#include "data/tokenizer/byte_alphabet.h"

namespace sluice {
namespace {

// Of patterns that llama.cpp cuts by the same rules. A name stands for more than a regex there:
// whether words that are tokens are looked up before merging, and whether its detokenizer changes
// spaces; where there is a choice, it is one that leaves text alone. o200k and kimi are not here:
// its gpt-4o takes only a-z and A-Z for small and capital letters, and its kimi-k2 cuts otherwise
// where combining marks follow no letter, as in many emoji.
struct PreTokenizerName {
  const char* pattern;
  const char* name;
  bool ignore_merges;
};
constexpr PreTokenizerName kNames[] = {
    {"gpt2", "granite-docling", false},    {"qwen2", "qwen2", false},
    {"cl100k", "llama-bpe", true},         {"cl100k", "dbrx", false},
    {"deepseek-v3", "deepseek-v3", false},
};

// What merging a word's bytes by rank ends with is one token.
bool merges_to_one(const Tokenizer& t, const std::string& word) {
  std::vector<int32_t> ids;
  for (const char c : word) ids.push_back(t.byte_token(uint8_t(c)));
  while (ids.size() > 1) {
    size_t best = 0;
    MergeTable::Merge merge{kNoRank, -1};
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      if (const auto m = t.merges().find(ids[i], ids[i + 1]); m.rank < merge.rank)
        best = i, merge = m;
    if (merge.rank == kNoRank) return false;
    ids[best] = merge.made;
    ids.erase(ids.begin() + int64_t(best) + 1);
  }
  return true;
}

// Then it is no matter whether words are looked up first.
bool merges_reach_every_token(const Tokenizer& t) {
  std::unordered_set<int32_t> added;
  for (const AddedToken& a : t.added()) added.insert(a.id);
  for (int32_t id = 0; id < t.vocab_size(); ++id)
    if (!added.contains(id) && !merges_to_one(t, t.token_bytes(id))) return false;
  return true;
}

std::string pre_tokenizer(const Tokenizer& t) {
  std::string names;
  bool known = false;
  for (const PreTokenizerName& n : kNames) {
    if (names.find(n.pattern) == std::string::npos)
      names += (names.empty() ? "" : ", ") + std::string(n.pattern);
    if (t.pattern() != n.pattern) continue;
    known = true;
    if (n.ignore_merges == t.looks_words_up()) return n.name;
  }
  SLUICE_CHECK(known, "the tokenizer's pattern is ", t.pattern(),
               ", which llama.cpp has no pre-tokenizer for; expected one of ", names);
  SLUICE_CHECK(
      merges_reach_every_token(t), "the tokenizer's pattern is ", t.pattern(),
      t.looks_words_up()
          ? " with ignore_merges, and some of its tokens no merge makes: llama.cpp's "
            "pre-tokenizer of this pattern does not look words up"
          : " without ignore_merges: llama.cpp's pre-tokenizer of this pattern looks words up");
  for (const PreTokenizerName& n : kNames)
    if (t.pattern() == n.pattern) return n.name;
  return "";
}

// It looks for each added token in turn, the longest first, where we take the leftmost, of those
// the longest: the same, unless one may begin inside of another that is not longer.
void check_added(const Tokenizer& t) {
  for (const AddedToken& a : t.added())
    for (const AddedToken& b : t.added()) {
      if ((a.special && b.special) || a.id == b.id || b.content.size() < a.content.size()) continue;
      for (size_t n = 1; n < a.content.size(); ++n) {
        const bool meet = a.content.compare(a.content.size() - n, n, b.content, 0, n) == 0;
        SLUICE_CHECK(
            !meet || (a.content + b.content.substr(n)).starts_with(b.content), "added tokens ",
            a.content, " and ", b.content,
            " may overlap in a text, where llama.cpp prefers the longer one; expected ones "
            "that cannot");
      }
    }
}

enum Kind : int64_t { normal = 1, control = 3, user_defined = 4, unused = 5 };

}  // namespace

GgufKeys gguf_vocabulary(const Tokenizer& t, int64_t vocab_size) {
  SLUICE_CHECK(
      !t.normalizes(),
      "the tokenizer has a normalizer (NFC), which llama.cpp would leave out; expected "
      "\"normalizer\": null in tokenizer.json, which changes no id of text that is in NFC");
  const std::string pre = pre_tokenizer(t);
  check_added(t);
  std::vector<std::string> tokens(static_cast<size_t>(vocab_size));
  std::vector<int64_t> kinds(tokens.size(), Kind::unused);
  SLUICE_CHECK(t.vocab_size() <= vocab_size, "the tokenizer has ", t.vocab_size(),
               " tokens, the model ", vocab_size);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool ours = int64_t(i) < t.vocab_size();
    tokens[i] = ours ? bytes_to_alphabet(t.token_bytes(int32_t(i))) : cat("[PAD", i, "]");
    if (ours) kinds[i] = Kind::normal;
  }
  for (const AddedToken& a : t.added()) {
    tokens[size_t(a.id)] = a.content;
    kinds[size_t(a.id)] = a.special ? Kind::control : Kind::user_defined;
  }
  std::unordered_set<std::string> seen;
  for (const std::string& s : tokens)
    SLUICE_CHECK(!s.empty() && seen.insert(s).second, "token \"", s,
                 "\" has two ids, which llama.cpp refuses");
  std::vector<std::string> merges;
  for (const auto& [a, b] : t.merges().by_rank())
    merges.push_back(tokens[size_t(a)] + " " + tokens[size_t(b)]);

  GgufKeys keys;
  const auto add = [&](const char* key, GgufValue v) {
    keys.emplace_back(std::string("tokenizer.ggml.") + key, std::move(v));
  };
  add("model", GgufValue::text("gpt2"));
  add("pre", GgufValue::text(pre));
  add("tokens", GgufValue::list(std::move(tokens)));
  add("token_type", GgufValue::i32_list(std::move(kinds)));
  add("merges", GgufValue::list(std::move(merges)));
  for (const char* id : {"bos_token_id", "eos_token_id", "padding_token_id"})
    add(id, GgufValue::u32(uint64_t(t.end_of_text())));
  add("add_bos_token", GgufValue::boolean(true));
  add("add_eos_token", GgufValue::boolean(false));
  return keys;
}

std::vector<std::string> taken_for_ends(const Tokenizer& t) {
  std::unordered_set<std::string> special;
  for (const AddedToken& a : t.added())
    if (a.special) special.insert(a.content);
  std::vector<std::string> found;
  for (int32_t id = 0; id < t.vocab_size(); ++id)
    for (const char* end :
         {"</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<eos>", "<|im_end|>", "<|end|>"})
      if (t.token_bytes(id) == end && !special.contains(end)) found.emplace_back(end);
  return found;
}

}  // namespace sluice
