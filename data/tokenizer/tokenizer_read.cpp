// data/tokenizer/tokenizer_read.cpp -- Hugging Face's tokenizer.json, read strictly.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace sluice {

using Json = nlohmann::json;

class JsonReader {
 public:
  explicit JsonReader(const std::string& path) : path_(path) {}
  Tokenizer read();

 private:
  enum class Need { required, optional };
  struct Rule {
    const char* key;
    Need need;
    Json::array_t allowed;  // none: any value, which the caller looks at
  };

  Json parse(std::istream& in) const;
  [[noreturn]] void refuse(const std::string& key, const std::string& expected,
                           const Json& got) const {
    std::string text = got.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 80) + "...";
    throw Error(path_ + ": " + key + ": expected " + expected + ", got " + text);
  }
  void check_object(const Json& j, const std::string& where, const std::vector<Rule>& rules) const;
  std::string pattern_of(const Json& pre_tokenizer) const;
  int32_t id_of(const Json& j, const std::string& where) const;
  void read_added(const Json& list, Tokenizer& t);
  void read_vocab(const Json& vocab, Tokenizer& t);
  void read_merges(const Json& merges, Tokenizer& t);
  void place(Tokenizer& t, int32_t id, const std::string& where);

  std::string path_;
  std::unordered_map<std::string, int32_t> specials_;  // by content
  std::unordered_map<std::string, int32_t> ids_;       // by bytes
  std::unordered_map<int32_t, std::string> holder_;    // which key of the file has the id
};

// JSON allows a key twice; one of the two would win, silently.
Json JsonReader::parse(std::istream& in) const {
  std::vector<std::unordered_set<std::string>> open;  // keys of the objects around
  return Json::parse(in, [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
      throw Error(path_ + ": " + parsed.dump() + " is given twice in one object");
    return true;
  });
}

// An object whose keys are all in the rules, with the allowed values.
void JsonReader::check_object(const Json& j, const std::string& where,
                              const std::vector<Rule>& rules) const {
  const std::string prefix = where.empty() ? "" : where + ".";
  if (!j.is_object()) refuse(where.empty() ? "file" : where, "an object", j);
  for (const auto& item : j.items()) {
    const auto rule = std::find_if(rules.begin(), rules.end(),
                                   [&](const Rule& r) { return item.key() == r.key; });
    if (rule == rules.end()) throw Error(path_ + ": " + prefix + item.key() + ": unknown key");
    const Json::array_t& ok = rule->allowed;
    if (ok.empty() || std::find(ok.begin(), ok.end(), item.value()) != ok.end()) continue;
    std::string expected;
    for (const Json& v : ok) expected += (expected.empty() ? "" : " or ") + v.dump();
    refuse(prefix + item.key(), expected, item.value());
  }
  for (const Rule& r : rules)
    if (r.need == Need::required && !j.contains(r.key))
      throw Error(path_ + ": " + prefix + r.key + ": missing");
}

// "gpt2" or "qwen2", by what the file's pre-tokenizer does.
std::string JsonReader::pattern_of(const Json& p) const {
  const auto check_bytes = [&](const Json& j, const std::string& where, Need need, bool use_regex) {
    check_object(j, where,
                 {{"type", Need::required, {"ByteLevel"}},
                  {"add_prefix_space", Need::required, {false}},
                  {"trim_offsets", Need::optional, {}},  // moves offsets, no ids
                  {"use_regex", need, {use_regex}}});    // the format's default is true
  };
  const std::string where = "pre_tokenizer";
  const Json type = p.is_object() ? p.value("type", Json()) : Json();
  if (type == "ByteLevel") {
    check_bytes(p, where, Need::optional, true);
    return "gpt2";
  }
  if (type != "Sequence") refuse(where, "GPT-2's ByteLevel or Qwen2's Sequence", p);
  check_object(p, where, {{"type", Need::required, {}}, {"pretokenizers", Need::required, {}}});
  const Json& parts = p["pretokenizers"];
  if (!parts.is_array() || parts.size() != 2)
    refuse(where + ".pretokenizers", "[Split, ByteLevel]", parts);
  check_object(parts[0], where + ".pretokenizers[0]",
               {{"type", Need::required, {"Split"}},
                {"pattern", Need::required, {}},
                {"behavior", Need::required, {"Isolated"}},
                {"invert", Need::required, {false}}});
  check_bytes(parts[1], where + ".pretokenizers[1]", Need::required, false);
  for (const char* name : {"gpt2", "qwen2"})
    if (parts[0]["pattern"] == Json{{"Regex", PreTokenizer::regex(name)}}) return name;
  refuse(where + ".pretokenizers[0].pattern", "the regex of GPT-2 or Qwen2", parts[0]["pattern"]);
}

int32_t JsonReader::id_of(const Json& j, const std::string& where) const {
  constexpr int64_t kMaxId = (1 << 24) - 1;  // a table is indexed with it
  if (!j.is_number_integer() || j < 0 || j > kMaxId)
    refuse(where, cat("an integer from 0 to ", kMaxId), j);
  return j.get<int32_t>();
}

void JsonReader::place(Tokenizer& t, int32_t id, const std::string& where) {
  const auto [old, fresh] = holder_.emplace(id, where);
  if (!fresh) throw Error(cat(path_, ": ", where, ": id ", id, " is taken by ", old->second));
  if (id >= t.vocab_size()) t.bytes_.resize(size_t(id) + 1);
}

void JsonReader::read_added(const Json& list, Tokenizer& t) {
  if (!list.is_array()) refuse("added_tokens", "a list", list);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = cat("added_tokens[", i, "]");
    check_object(
        list[i], where,
        {{"id", Need::required, {}},
         {"content", Need::required, {}},
         {"single_word", Need::optional, {}},  // these four say where in a text it is found:
         {"lstrip", Need::optional, {}},       // plain text has none
         {"rstrip", Need::optional, {}},
         {"normalized", Need::optional, {}},
         {"special", Need::required, {true}}});
    const Json& content = list[i]["content"];
    if (!content.is_string() || content == "") refuse(where + ".content", "some text", content);
    const int32_t id = id_of(list[i]["id"], where + ".id");
    if (!specials_.emplace(content, id).second) refuse(where + ".content", "a new one", content);
    place(t, id, where);
    t.added_.push_back({id, content});
    if (content == kEndOfText) t.end_of_text_ = id;
  }
  if (t.end_of_text_ < 0) refuse("added_tokens", kEndOfText, list);
}

void JsonReader::read_vocab(const Json& vocab, Tokenizer& t) {
  if (!vocab.is_object()) refuse("model.vocab", "an object", vocab);
  for (const auto& item : vocab.items()) {
    const std::string where = "model.vocab[\"" + item.key() + "\"]";
    const int32_t id = id_of(item.value(), where);
    if (const auto special = specials_.find(item.key()); special != specials_.end()) {
      if (special->second != id) refuse(where, cat(special->second, " as in added_tokens"), id);
      continue;  // GPT-2's own file lists it in both places
    }
    const std::string bytes = alphabet_to_bytes(item.key(), path_ + ": model.vocab");
    if (bytes.empty()) throw Error(path_ + ": " + where + ": an empty token");
    place(t, id, where);
    t.bytes_[size_t(id)] = bytes;
    ids_[bytes] = id;
    if (bytes.size() == 1) t.of_byte_[uint8_t(bytes[0])] = id;
  }
  for (size_t b = 0; b < 256; ++b)
    if (t.of_byte_[b] < 0) throw Error(cat(path_, ": model.vocab: byte ", b, " has no token"));
}

// ["a", "b"] or "a b".
void JsonReader::read_merges(const Json& merges, Tokenizer& t) {
  if (!merges.is_array()) refuse("model.merges", "a list", merges);
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string where = cat("model.merges[", i, "]");
    const Json& m = merges[i];
    Json left, right;
    if (m.is_array() && m.size() == 2) {
      left = m[0], right = m[1];
    } else if (m.is_string()) {
      const std::string text = m;
      const size_t space = text.find(' ');
      if (space != std::string::npos) left = text.substr(0, space), right = text.substr(space + 1);
    }
    if (!left.is_string() || !right.is_string()) refuse(where, "two tokens", m);
    const auto find = [&](const Json& side) {
      return ids_.find(alphabet_to_bytes(side.get_ref<const std::string&>(), path_ + ": " + where));
    };
    const auto a = find(left), b = find(right);
    if (a == ids_.end() || b == ids_.end()) refuse(where, "two tokens of model.vocab", m);
    const auto made = ids_.find(a->first + b->first);
    if (made == ids_.end()) refuse(where, "a merge whose result is in model.vocab", m);
    if (!t.merges_.add(a->second, b->second, made->second))
      refuse(where, "a merge that is not listed before", m);
  }
}

Tokenizer JsonReader::read() {
  std::ifstream in(path_, std::ios::binary);
  SLUICE_CHECK(in, path_, ": ", std::strerror(errno));
  const Json file = parse(in);
  // Absent and null are the same to the format; what is null here would change ids if it were not.
  check_object(file, "",
               {{"version", Need::optional, {}},
                {"truncation", Need::optional, {nullptr}},
                {"padding", Need::optional, {nullptr}},
                {"added_tokens", Need::required, {}},
                {"normalizer", Need::optional, {nullptr}},
                {"pre_tokenizer", Need::required, {}},
                {"post_processor", Need::optional, {}},
                {"decoder", Need::required, {}},
                {"model", Need::required, {}}});
  const auto is_byte_level = [](const Json& j) {
    return j.is_object() && j.value("type", Json()) == "ByteLevel";
  };
  if (const Json post = file.value("post_processor", Json());
      !post.is_null() && !is_byte_level(post))
    refuse("post_processor", "null or ByteLevel", post);
  if (!is_byte_level(file["decoder"])) refuse("decoder", "ByteLevel", file["decoder"]);
  const Json& model = file["model"];
  check_object(model, "model",
               {{"type", Need::required, {"BPE"}},
                {"dropout", Need::optional, {nullptr}},
                {"unk_token", Need::optional, {nullptr}},
                {"continuing_subword_prefix", Need::optional, {nullptr, ""}},
                {"end_of_word_suffix", Need::optional, {nullptr, ""}},
                {"fuse_unk", Need::optional, {}},  // without an unk_token it does nothing
                {"byte_fallback", Need::optional, {false}},
                {"ignore_merges", Need::optional, {false}},
                {"vocab", Need::required, {}},
                {"merges", Need::required, {}}});
  Tokenizer t{PreTokenizer(pattern_of(file["pre_tokenizer"]))};
  read_added(file["added_tokens"], t);
  read_vocab(model["vocab"], t);
  read_merges(model["merges"], t);
  return t;
}

Tokenizer Tokenizer::load(const std::string& path) {
  try {
    return JsonReader(path).read();
  } catch (const nlohmann::json::exception& e) {  // its text has line and column
    throw Error(path + ": " + e.what());
  }
}

}  // namespace sluice
