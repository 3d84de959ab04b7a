// data/tokenizer/tokenizer_read.cpp -- Hugging Face's tokenizer.json, read strictly.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace sluice {

using Json = nlohmann::json;

// `tokenizers` takes for a digit what Unicode 17 calls a number; its regexes know Unicode 16.
constexpr const char* kDigit = "[\\p{N}\U00011de0-\U00011de9\U00016ff4-\U00016ff6]";
constexpr const char* kDigits = "[\\p{N}\U00011de0-\U00011de9\U00016ff4-\U00016ff6]+";

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
  void read_normalizer(const Json& n, Tokenizer& t);
  void read_cut(const Json& part, const std::string& where, Pattern& pattern);
  PreTokenizer read_pre_tokenizer(const Json& p);
  void read_post_processor(const Json& post, Tokenizer& t);
  int32_t id_of(const Json& j, const std::string& where) const;
  void read_added(const Json& list, Tokenizer& t);
  void read_vocab(const Json& vocab, Tokenizer& t);
  void read_merges(const Json& merges, Tokenizer& t);
  void place(Tokenizer& t, int32_t id, const std::string& where);

  std::string path_;
  std::unordered_map<std::string, int32_t> added_;   // by content
  std::unordered_map<std::string, int32_t> ids_;     // by bytes
  std::unordered_map<int32_t, std::string> holder_;  // which key of the file has the id
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

void JsonReader::read_normalizer(const Json& n, Tokenizer& t) {
  if (n.is_null()) return;
  check_object(
      n, "normalizer",
      {{"type", Need::required, {"NFC", "Sequence"}}, {"normalizers", Need::optional, {}}});
  if (n["type"] == "NFC") {
    t.nfc_ = true;
  } else if (n.value("normalizers", Json()) != Json::array()) {
    refuse("normalizer", "null, NFC or an empty Sequence", n);
  }
}

// The regexes that a part of the pre-tokenizer is, after those before it.
void JsonReader::read_cut(const Json& part, const std::string& where, Pattern& pattern) {
  const Json type = part.is_object() ? part.value("type", Json()) : Json();
  if (type == "Split") {
    check_object(part, where,
                 {{"type", Need::required, {}},
                  {"pattern", Need::required, {}},
                  {"behavior", Need::required, {"Isolated"}},
                  {"invert", Need::optional, {}}});  // with Isolated the pieces are the same
    check_object(part["pattern"], where + ".pattern", {{"Regex", Need::required, {}}});
    const Json& regex = part["pattern"]["Regex"];
    if (!regex.is_string()) refuse(where + ".pattern.Regex", "a regex", regex);
    pattern.push_back(regex);
    try {
      to_pcre2(pattern.back());
    } catch (const Error& e) {
      throw Error(path_ + ": " + where + ".pattern.Regex: " + e.what());
    }
  } else if (type == "Digits") {
    check_object(
        part, where,
        {{"type", Need::required, {}}, {"individual_digits", Need::required, {true, false}}});
    pattern.push_back(part["individual_digits"] == true ? kDigit : kDigits);
  } else if (type == "ByteLevel") {
    check_object(part, where,
                 {{"type", Need::required, {}},
                  {"add_prefix_space", Need::required, {false}},
                  {"trim_offsets", Need::optional, {}},  // moves offsets, no ids
                  {"use_regex", Need::optional, {true, false}}});
    if (part.value("use_regex", true)) pattern.push_back(pattern_of("gpt2")[0]);
  } else {
    refuse(where, "Split, Digits or ByteLevel", part);
  }
}

PreTokenizer JsonReader::read_pre_tokenizer(const Json& p) {
  const std::string where = "pre_tokenizer";
  const auto is_byte_level = [](const Json& j) {
    return j.is_object() && j.value("type", Json()) == "ByteLevel";
  };
  Pattern pattern;
  if (p.is_object() && p.value("type", Json()) == "Sequence") {
    check_object(p, where, {{"type", Need::required, {}}, {"pretokenizers", Need::required, {}}});
    const Json& parts = p["pretokenizers"];
    if (!parts.is_array() || parts.empty() || !is_byte_level(parts.back()))
      refuse(where + ".pretokenizers", "a list that ends with ByteLevel", parts);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (is_byte_level(parts[i]) && i + 1 < parts.size())
        refuse(cat(where, ".pretokenizers[", i, "]"), "ByteLevel only at the end", parts[i]);
      read_cut(parts[i], cat(where, ".pretokenizers[", i, "]"), pattern);
    }
  } else {
    if (!is_byte_level(p)) refuse(where, "ByteLevel, or a Sequence that ends with it", p);
    read_cut(p, where, pattern);
  }
  if (pattern.empty()) refuse(where, "a regex that cuts text into words", p);
  return PreTokenizer(pattern);
}

// It adds special tokens around a text, which is up to whoever makes documents: kept for others.
void JsonReader::read_post_processor(const Json& post, Tokenizer& t) {
  const auto check = [&](const Json& j, const std::string& where) {
    const Json type = j.is_object() ? j.value("type", Json()) : Json();
    if (type != "ByteLevel" && type != "TemplateProcessing")
      refuse(where, "ByteLevel, TemplateProcessing or a Sequence of these", j);
  };
  if (post.is_null()) return;
  if (post.is_object() && post.value("type", Json()) == "Sequence") {
    const Json parts = post.value("processors", Json());
    if (!parts.is_array()) refuse("post_processor.processors", "a list", parts);
    for (size_t i = 0; i < parts.size(); ++i)
      check(parts[i], cat("post_processor.processors[", i, "]"));
  } else {
    check(post, "post_processor");
  }
  t.post_processor_ = post.dump();
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
    const Json::array_t flag = {true, false};
    check_object(list[i], where,
                 {{"id", Need::required, {}},
                  {"content", Need::required, {}},
                  {"single_word", Need::required, flag},
                  {"lstrip", Need::required, flag},
                  {"rstrip", Need::required, flag},
                  {"normalized", Need::required, flag},
                  {"special", Need::required, flag}});
    const Json& content = list[i]["content"];
    if (!content.is_string() || content == "") refuse(where + ".content", "some text", content);
    const AddedToken token{.id = id_of(list[i]["id"], where + ".id"),
                           .content = content,
                           .special = list[i]["special"],
                           .normalized = list[i]["normalized"],
                           .single_word = list[i]["single_word"],
                           .lstrip = list[i]["lstrip"],
                           .rstrip = list[i]["rstrip"]};
    for (const char* key : {"single_word", "lstrip", "rstrip"})
      if (!token.special && list[i][key] == true)
        refuse(where + "." + key, "false, since the token is not special: it would lose text",
               true);
    if (!added_.emplace(token.content, token.id).second)
      refuse(where + ".content", "a new one", content);
    place(t, token.id, where);
    if (!token.special) t.bytes_[size_t(token.id)] = token.content;
    t.add_token(token);
  }
}

void JsonReader::read_vocab(const Json& vocab, Tokenizer& t) {
  if (!vocab.is_object()) refuse("model.vocab", "an object", vocab);
  for (const auto& item : vocab.items()) {
    const std::string where = "model.vocab[\"" + item.key() + "\"]";
    const int32_t id = id_of(item.value(), where);
    if (const auto added = added_.find(item.key()); added != added_.end()) {
      if (added->second != id) refuse(where, cat(added->second, " as in added_tokens"), id);
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
  for (int32_t id = 0; id < t.vocab_size(); ++id)
    if (!holder_.count(id))
      throw Error(cat(path_, ": model.vocab: expected a token for each id up to ",
                      t.vocab_size() - 1, ", got none for ", id));
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
                {"normalizer", Need::optional, {}},
                {"pre_tokenizer", Need::required, {}},
                {"post_processor", Need::optional, {}},
                {"decoder", Need::required, {}},
                {"model", Need::required, {}}});
  if (const Json& d = file["decoder"]; !d.is_object() || d.value("type", Json()) != "ByteLevel")
    refuse("decoder", "ByteLevel", d);
  const Json& model = file["model"];
  check_object(model, "model",
               {{"type", Need::required, {"BPE"}},
                {"dropout", Need::optional, {nullptr, 0.0}},
                {"unk_token", Need::optional, {}},  // for bytes without a token: there are none
                {"continuing_subword_prefix", Need::optional, {nullptr, ""}},
                {"end_of_word_suffix", Need::optional, {nullptr, ""}},
                {"fuse_unk", Need::optional, {}},       // without an unk_token it does nothing
                {"byte_fallback", Need::optional, {}},  // neither has this anything to do
                {"ignore_merges", Need::optional, {true, false}},
                {"vocab", Need::required, {}},
                {"merges", Need::required, {}}});
  Tokenizer t{read_pre_tokenizer(file["pre_tokenizer"])};
  read_normalizer(file.value("normalizer", Json()), t);  // which added tokens need
  read_added(file["added_tokens"], t);
  read_vocab(model["vocab"], t);
  read_merges(model["merges"], t);
  read_post_processor(file.value("post_processor", Json()), t);
  t.ignore_merges_ = model.value("ignore_merges", false);
  try {
    t.finish();
  } catch (const Error& e) {
    throw Error(path_ + ": added_tokens: " + e.what());
  }
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
