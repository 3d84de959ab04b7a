// configs/reader.cpp -- decoding, strays and the wording of problems.
#include "configs/reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "kernels/base/nearest.h"

namespace sluice::config {

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

template <class T>
static bool number(const YAML::Node& node, T& out) {
  if (!node.IsScalar()) return false;
  const std::string& s = node.Scalar();
  std::string plain;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_')
      plain += s[i];
    else if (i == 0 || i + 1 == s.size() || !is_digit(s[i - 1]) || !is_digit(s[i + 1]))
      return false;
  }
  // from_chars takes no plus sign.
  const size_t begin = plain.size() > 1 && plain[0] == '+' && plain[1] != '-';
  const char* end = plain.data() + plain.size();
  const auto r = std::from_chars(plain.data() + begin, end, out);
  return r.ec == std::errc() && r.ptr == end;
}

bool decode(const YAML::Node& node, int64_t& out) {
  return number(node, out);
}
bool decode(const YAML::Node& node, int& out) {
  return number(node, out);
}
bool decode(const YAML::Node& node, double& out) {
  return number(node, out) && std::isfinite(out);
}
bool decode(const YAML::Node& node, float& out) {
  return number(node, out) && std::isfinite(out);
}
bool decode(const YAML::Node& node, bool& out) {
  if (!node.IsScalar() || (node.Scalar() != "true" && node.Scalar() != "false")) return false;
  out = node.Scalar() == "true";
  return true;
}
bool decode(const YAML::Node& node, std::string& out) {
  if (!node.IsScalar()) return false;
  out = node.Scalar();
  return true;
}

YAML::Node Reader::find(const char* key) {
  known_.push_back(key);
  const YAML::Node& node = node_;
  return node[key];
}

YAML::Node Reader::place_of(const std::string& key) const {
  YAML::Node at = node_;
  std::istringstream names(key);
  for (std::string name; std::getline(names, name, '.');) {
    const YAML::Node& inside = at;  // const: looks without making the key
    const YAML::Node next = inside[name];
    if (!next.IsDefined()) return node_;
    at.reset(next);
  }
  return at;
}

static std::string given_twice(int first_line) {
  return cat("given twice (first at line ", first_line, ")");
}

void Reader::map(const char* key, std::map<std::string, std::string>& items,
                 const std::string& expected) {
  const YAML::Node value = find(key);
  if (!value.IsDefined()) return;
  if (!value.IsMap()) return report_value(value, key, expected);
  items.clear();
  std::map<std::string, int> first_line;
  for (const auto& entry : value) {
    const std::string name = entry.first.Scalar();
    std::string text;
    const auto [seen, fresh] = first_line.emplace(name, entry.first.Mark().line + 1);
    if (!fresh)
      report(entry.first, cat(key, ".", name), given_twice(seen->second));
    else if (!decode(entry.second, text))
      report_value(entry.second, cat(key, ".", name), expected);
    else
      items[name] = text;
  }
}

void Reader::settings(const char* key, std::vector<Setting>& items, const std::string& expected) {
  const YAML::Node value = find(key);
  if (!value.IsDefined()) return;
  if (!value.IsMap()) return report_value(value, key, expected);
  items.clear();
  std::map<std::string, int> first_line;
  for (const auto& entry : value) {
    const std::string name = entry.first.Scalar();
    const auto [seen, fresh] = first_line.emplace(name, entry.first.Mark().line + 1);
    if (!fresh)
      report(entry.first, cat(key, ".", name), given_twice(seen->second));
    else
      items.push_back({name, entry.second, place(entry.first, path_ + key + "." + name).text});
  }
}

void Reader::choices(const char* key, std::vector<std::vector<Setting>>& items,
                     const std::string& expected) {
  std::vector<Setting> lists;
  settings(key, lists, expected);
  items.clear();
  for (const Setting& list : lists) {
    const std::string name = cat(key, ".", list.key);
    if (!list.value.IsSequence() || list.value.size() == 0) {
      report_value(list.value, name, "a list of values");
      continue;
    }
    std::vector<Setting>& values = items.emplace_back();
    for (const YAML::Node& item : list.value)
      values.push_back({list.key, item, place(item, path_ + name).text});
  }
}

static bool is_inside(const std::string& key, const std::string& section) {
  const size_t n = section.size();
  return key.size() > n && key.compare(0, n, section) == 0 && (key[n] == '.' || key[n] == '[');
}

// The override that wrote `at`, which is the key or the value of `full`; null: the file did. A node
// that write() made has no mark, a value that it placed has the mark it had in the override's text.
const Override* Reader::source(const YAML::Node& at, const std::string& full) const {
  const bool made = at.Mark().is_null();
  for (size_t i = document_.overrides.size(); i-- > 0;) {
    const Override& o = document_.overrides[i];
    const bool this_key = full == o.key && (made || at.is(o.value));
    if (this_key || is_inside(full, o.key) || (made && is_inside(o.key, full))) return &o;
  }
  if (!made) return nullptr;
  // A cross-field problem of a section that exists only because of overrides.
  for (size_t i = document_.overrides.size(); i-- > 0;)
    if (document_.overrides[i].key.compare(0, path_.size(), path_) == 0)
      return &document_.overrides[i];
  return nullptr;
}

Problem Reader::place(const YAML::Node& at, const std::string& full) const {
  if (const Override* o = source(at, full)) return {0, 0, o->shown};
  YAML::Mark mark = at.Mark();
  if (at.IsNull())  // "key:" and nothing: yaml-cpp marks what comes next, often a line further
    for (const auto& entry : node_)
      if (node_.IsMap() && entry.second.is(at) && entry.first.Mark().line != mark.line)
        mark = entry.first.Mark();
  // Marks count from 0, editors from 1; the root of an empty file has none.
  const int line = std::max(mark.line, 0) + 1, column = std::max(mark.column, 0) + 1;
  return {line, column, cat(document_.label, ":", line, ":", column)};
}

void Reader::report(const YAML::Node& at, const std::string& key, const std::string& text) {
  const std::string full = path_ + key;
  Problem p = place(at, full);
  p.text += cat(": ", full, ": ", text);
  document_.problems.push_back(std::move(p));
}

// On one line; what lies deeper than the items of a list is left out.
static std::string shown(const YAML::Node& value) {
  if (value.IsNull()) return "null";
  if (value.IsScalar()) return "\"" + value.Scalar() + "\"";
  if (value.IsMap()) return "a section";
  std::string items;
  for (const YAML::Node& item : value)
    items += (items.empty() ? "" : ", ") + (item.IsSequence() ? "a list" : shown(item));
  return items.size() > 80 ? cat("a list of ", value.size()) : "[" + items + "]";
}

void Reader::report_value(const YAML::Node& at, const std::string& key,
                          const std::string& expected) {
  report(at, key, cat("expected ", expected, ", got ", shown(at)));
}

void Reader::reject_strays() {
  std::map<std::string, int> first_line;
  for (const auto& entry : node_) {
    const std::string key = entry.first.Scalar();
    const auto [seen, fresh] = first_line.emplace(key, entry.first.Mark().line + 1);
    if (!fresh) {  // yaml-cpp itself takes one of the two, silently
      report(entry.first, key, given_twice(seen->second));
      continue;
    }
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string nearest = nearest_name(known_, key);
    report(entry.first, key,
           nearest.empty() ? "unknown key" : "unknown key; did you mean \"" + nearest + "\"?");
  }
}

void Reader::finish() const {
  if (document_.problems.empty()) return;
  std::vector<Problem> sorted = document_.problems;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  std::string all;
  for (const Problem& p : sorted) all += (all.empty() ? "" : "\n") + p.text;
  throw Error(all);
}

}  // namespace sluice::config
