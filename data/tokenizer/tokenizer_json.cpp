// data/tokenizer/tokenizer_json.cpp -- Hugging Face's tokenizer.json, read strictly and written.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace sluice {

using Json = nlohmann::ordered_json;
constexpr const char* kEndOfText = "<|endoftext|>";

static Json pre_tokenizer_json(const std::string& pattern) {
  const bool gpt2 = pattern == "gpt2";
  const Json bytes{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true},
                   {"use_regex", gpt2}};
  if (gpt2) return bytes;
  const Json split{{"type", "Split"},
                   {"pattern", {{"Regex", PreTokenizer::regex(pattern)}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}};
}

void Tokenizer::save(const std::string& path) const {
  Json vocab = Json::object(), merges = Json::array();
  for (int32_t id = 0; id < vocab_size(); ++id)
    if (id != end_of_text_) vocab[bytes_to_alphabet(bytes_[size_t(id)])] = id;
  for (const auto& [a, b] : merges_)
    merges.push_back({bytes_to_alphabet(bytes_[size_t(a)]), bytes_to_alphabet(bytes_[size_t(b)])});
  const Json special{{"id", end_of_text_},  {"content", kEndOfText}, {"single_word", false},
                     {"lstrip", false},     {"rstrip", false},       {"normalized", false},
                     {"special", true}};
  const Json file{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", Json::array({special})},
      {"normalizer", nullptr},
      {"pre_tokenizer", pre_tokenizer_json(pattern())},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", merges}}}};
  const std::string temporary = path + ".tmp";
  {
    std::ofstream out(temporary, std::ios::binary);
    out << file.dump(1, ' ', false, Json::error_handler_t::strict) << "\n";
    out.flush();
    SLUICE_CHECK(out, temporary, ": ", std::strerror(errno));
  }
  SLUICE_CHECK(std::rename(temporary.c_str(), path.c_str()) == 0, path, ": ", std::strerror(errno));
}

// "gpt2" or "qwen2", by what the file's pre-tokenizer does.
static std::string pattern_of(const std::string& path, const Json& p) {
  const std::string type = p.is_object() ? p.value("type", "") : "";
  if (type == "ByteLevel" && p.value("use_regex", true) && !p.value("add_prefix_space", true))
    return "gpt2";
  if (type == "Sequence" && p.contains("pretokenizers") && p["pretokenizers"].size() == 2) {
    const Json &split = p["pretokenizers"][0], &bytes = p["pretokenizers"][1];
    const bool isolated = split.value("type", "") == "Split" && split.value("behavior", "") == "Isolated";
    if (isolated && bytes.value("type", "") == "ByteLevel" && !bytes.value("use_regex", true))
      for (const char* name : {"gpt2", "qwen2"})
        if (split["pattern"].value("Regex", "") == PreTokenizer::regex(name)) return name;
  }
  throw Error(cat(path, ": pre_tokenizer: expected GPT-2's ByteLevel or Qwen2's Split, got ",
                  p.dump().substr(0, 160)));
}

Tokenizer Tokenizer::load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  SLUICE_CHECK(in, path, ": ", std::strerror(errno));
  const Json file = Json::parse(in, nullptr, false);
  if (file.is_discarded() || !file.is_object()) throw Error(path + ": expected a JSON object");
  auto need = [&](bool ok, const std::string& what) {
    if (!ok) throw Error(path + ": " + what);
  };
  need(file.contains("model") && file["model"].is_object(), "model: expected an object, got none");
  const Json& model = file["model"];
  need(model.value("type", "") == "BPE", "model.type: expected \"BPE\"");
  need(model.contains("vocab") && model["vocab"].is_object(), "model.vocab: expected an object");
  need(model.contains("merges") && model["merges"].is_array(), "model.merges: expected a list");
  need(!file.contains("normalizer") || file["normalizer"].is_null(),
       "normalizer: expected null, got " + file.value("normalizer", Json()).dump().substr(0, 80));

  Tokenizer t{PreTokenizer(pattern_of(path, file.value("pre_tokenizer", Json())))};
  auto place = [&](int64_t id, const std::string& bytes) {
    need(id >= 0 && id < (1 << 24), cat("id ", id, " is out of range"));
    if (id >= t.vocab_size()) t.bytes_.resize(size_t(id) + 1);
    t.bytes_[size_t(id)] = bytes;
  };
  std::unordered_map<std::string, int32_t> ids;
  for (const auto& [text, id] : model["vocab"].items()) {
    need(id.is_number_integer(), "model.vocab: the id of \"" + text + "\" is no integer");
    const std::string bytes = alphabet_to_bytes(text, path + ": model.vocab");
    place(id.get<int64_t>(), bytes);
    ids[bytes] = id.get<int32_t>();
    if (bytes.size() == 1) t.of_byte_[uint8_t(bytes[0])] = id.get<int32_t>();
  }
  for (int b = 0; b < 256; ++b)
    need(t.of_byte_[size_t(b)] >= 0, cat("model.vocab: byte ", b, " has no token"));
  size_t number = 0;
  for (const Json& m : model["merges"]) {
    std::string left, right;
    if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      left = m[0], right = m[1];
    } else if (m.is_string()) {
      const std::string text = m;
      left = text.substr(0, text.find(' ')), right = text.substr(text.find(' ') + 1);
    }
    const auto a = ids.find(alphabet_to_bytes(left, path)), b = ids.find(alphabet_to_bytes(right, path));
    need(a != ids.end() && b != ids.end(), cat("model.merges[", number, "]: expected two known tokens"));
    const auto made = ids.find(a->first + b->first);
    need(made != ids.end(), cat("model.merges[", number, "]: its result is not in the vocabulary"));
    t.add_merge(a->second, b->second, made->second);
    ++number;
  }
  for (const Json& added : file.value("added_tokens", Json::array())) {
    place(added.at("id").get<int64_t>(), "");
    if (added.value("content", "") == kEndOfText) t.end_of_text_ = added.at("id").get<int32_t>();
  }
  need(t.end_of_text_ >= 0, cat("added_tokens: expected ", kEndOfText));
  return t;
}

}  // namespace sluice
