// data/tokenizer/tokenizer_write.cpp -- Hugging Face's tokenizer.json, written.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace sluice {

using Ordered = nlohmann::ordered_json;  // keys in the order people know

static Ordered pre_tokenizer_json(const Pattern& pattern) {
  const bool gpt2 = pattern_name(pattern) == "gpt2";
  const Ordered bytes{{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", gpt2}};
  if (gpt2) return bytes;
  Ordered parts = Ordered::array();
  for (const std::string& regex : pattern)
    parts.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", regex}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  parts.push_back(bytes);
  return {{"type", "Sequence"}, {"pretokenizers", parts}};
}

static void write_file(const std::string& path, const Ordered& file) {
  const std::string temporary = path + ".tmp";
  {
    std::ofstream out(temporary, std::ios::binary);
    out << file.dump(1, ' ', false, Ordered::error_handler_t::strict) << "\n";
    out.flush();
    SLUICE_CHECK(out, temporary, ": ", std::strerror(errno));
  }
  SLUICE_CHECK(std::rename(temporary.c_str(), path.c_str()) == 0, path, ": ", std::strerror(errno));
}

void Tokenizer::save(const std::string& path) const {
  std::unordered_set<int32_t> added_ids;
  for (const AddedToken& a : added_) added_ids.insert(a.id);
  Ordered::object_t vocab;  // appended to: its operator[] is a linear search
  for (int32_t id = 0; id < vocab_size(); ++id)
    if (!added_ids.count(id))
      vocab.emplace_back(bytes_to_alphabet(bytes_[size_t(id)]), Ordered(id));
  Ordered merges = Ordered::array(), added = Ordered::array();
  for (const auto& [a, b] : merges_.by_rank())
    merges.push_back({bytes_to_alphabet(bytes_[size_t(a)]), bytes_to_alphabet(bytes_[size_t(b)])});
  for (const AddedToken& a : added_)
    added.push_back({{"id", a.id},
                     {"content", a.content},
                     {"single_word", a.single_word},
                     {"lstrip", a.lstrip},
                     {"rstrip", a.rstrip},
                     {"normalized", a.normalized},
                     {"special", a.special}});
  write_file(path, {{"version", "1.0"},
                    {"truncation", nullptr},
                    {"padding", nullptr},
                    {"added_tokens", added},
                    {"normalizer", nfc_ ? Ordered{{"type", "NFC"}} : Ordered()},
                    {"pre_tokenizer", pre_tokenizer_json(cut_.pattern())},
                    {"post_processor", Ordered::parse(post_processor_)},
                    {"decoder",
                     {{"type", "ByteLevel"},
                      {"add_prefix_space", true},
                      {"trim_offsets", true},
                      {"use_regex", true}}},
                    {"model",
                     {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", ignore_merges_},
                      {"vocab", vocab},
                      {"merges", merges}}}});
}

}  // namespace sluice
