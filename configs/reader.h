// configs/reader.h -- the visitor that reads YAML strictly and collects every problem.
#pragma once

#include <yaml-cpp/yaml.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/check.h"

namespace sluice::config {

struct Problem {
  int line = 0, column = 0;  // from 1; 0: of no place in the file
  std::string text;
};

// A key that is to have another value than in the file.
struct Setting {
  std::string key;  // "data.train.0.path"
  YAML::Node value;
  std::string from;  // begins what is reported about it: "--set data.train.0.path=x"
};

struct Override {
  std::string key;    // as problems spell it: "data.train[0].path"
  std::string shown;  // Setting::from
  YAML::Node value;
};

// A parsed file with its settings applied. What came from one is reported under its name.
struct Document {
  std::string label;
  YAML::Node root;
  std::vector<Override> overrides;
  std::vector<Problem> problems;
};

std::string read_file(const std::string& file);  // throws with the path and the system's reason
Document parse(const std::string& text, const std::string& label,
               const std::vector<std::string>& overrides);  // "a.b.0.c=value", value in YAML
Document parse_with(const std::string& text, const std::string& label,
                    const std::vector<Setting>& settings);

// False if the node is no such value. Numbers may have underscores between digits (1_000_000) and
// must be finite and in range.
bool decode(const YAML::Node& node, int64_t& out);
bool decode(const YAML::Node& node, int& out);
bool decode(const YAML::Node& node, double& out);
bool decode(const YAML::Node& node, float& out);
bool decode(const YAML::Node& node, bool& out);
bool decode(const YAML::Node& node, std::string& out);
template <class T>
bool decode(const YAML::Node& node, std::optional<T>& out) {
  if (node.IsNull()) {
    out.reset();
    return true;
  }
  T value{};
  if (!decode(node, value)) return false;
  out = value;
  return true;
}
template <class T>
bool decode(const YAML::Node& node, std::vector<T>& out) {
  if (!node.IsSequence()) return false;
  out.clear();
  for (const YAML::Node& item : node)
    if (!decode(item, out.emplace_back())) return false;
  return true;
}
template <class T, size_t n>
bool decode(const YAML::Node& node, std::array<T, n>& out) {
  if (!node.IsSequence() || node.size() != n) return false;
  for (size_t i = 0; i < n; ++i)
    if (!decode(node[i], out[i])) return false;
  return true;
}

class Reader {
 public:
  Reader(Document& document, YAML::Node node, std::string path)
      : document_(document), node_(std::move(node)), path_(std::move(path)) {}

  // Reads `key` into `field` if it is there; otherwise the struct's default stands.
  template <class T, class Ok>
  void operator()(const char* key, T& field, const std::string& expected, Ok ok) {
    const YAML::Node value = find(key);
    if (!value.IsDefined()) return;
    T parsed{};
    if (decode(value, parsed) && ok(parsed))
      field = parsed;
    else
      report_value(value, key, expected);
  }
  template <class Section>
  void section(const char* key, Section& section) {
    const YAML::Node value = find(key);
    if (!value.IsDefined()) return;
    if (!value.IsMap()) return report_value(value, key, "a section of keys");
    Reader(document_, value, path_ + key + ".").read(section);
  }
  // A section that may be left out: null, or its keys.
  template <class Section>
  void optional_section(const char* key, std::optional<Section>& section) {
    const YAML::Node value = find(key);
    if (!value.IsDefined()) return;
    if (value.IsNull()) return section.reset();
    if (!value.IsMap()) return report_value(value, key, "null or a section of keys");
    Reader(document_, value, path_ + key + ".").read(section.emplace());
  }
  template <class Struct>
  void list(const char* key, std::vector<Struct>& items, const std::string& expected) {
    const YAML::Node value = find(key);
    if (!value.IsDefined()) return;
    if (!value.IsSequence()) return report_value(value, key, expected);
    items.clear();
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string name = cat(key, "[", i, "]");
      if (!value[i].IsMap())
        report_value(value[i], name, expected);
      else
        Reader(document_, value[i], path_ + name + ".").read(items.emplace_back());
    }
  }
  void map(const char* key, std::map<std::string, std::string>& items, const std::string& expected);
  // Keys of another config with values for them, and keys with a list of values each.
  void settings(const char* key, std::vector<Setting>& items, const std::string& expected);
  void choices(const char* key, std::vector<std::vector<Setting>>& items,
               const std::string& expected);

  // All of a struct: its keys, the keys it does not have, and its problems().
  template <class Struct>
  void read(Struct& s) {
    s.visit(*this);
    reject_strays();
    if constexpr (requires { s.problems(); })
      for (const auto& [key, text] : s.problems()) report(place_of(key), key, text);
  }
  void finish() const;  // throws if there was any problem

 private:
  YAML::Node find(const char* key);
  YAML::Node place_of(const std::string& key) const;
  const Override* source(const YAML::Node& at, const std::string& full) const;
  Problem place(const YAML::Node& at, const std::string& full) const;  // text: where that is
  void report(const YAML::Node& at, const std::string& key, const std::string& text);
  void report_value(const YAML::Node& at, const std::string& key, const std::string& expected);
  void reject_strays();

  Document& document_;
  YAML::Node node_;
  std::string path_;
  std::vector<std::string> known_;
};

}  // namespace sluice::config
