// configs/flatten.h -- the visitor that lists a config's keys with their values, for print and
// diff.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace sluice::config {

// One line of YAML: a value, or the head of a section or of a list item.
struct Line {
  std::string path;   // "optim.schedule.kind", "data.train[0].path"
  std::string key;    // "kind"; empty: a list item starts here
  std::string value;  // YAML; empty: a section follows
  int depth = 0;
};

std::string scalar(int64_t x);
std::string scalar(int x);
std::string scalar(double x);  // the fewest digits that read back to the same number
std::string scalar(float x);
std::string scalar(bool x);
std::string scalar(const std::string& x);  // quoted if YAML would read something else
template <class T>
std::string scalar(const std::optional<T>& x) {
  return x ? scalar(*x) : "null";
}
template <class List>
std::string flow_list(const List& list) {
  std::string s = "[";
  for (const auto& x : list) s += (s.size() > 1 ? ", " : "") + scalar(x);
  return s + "]";
}
template <class T>
std::string scalar(const std::vector<T>& x) {
  return flow_list(x);
}
template <class T, size_t n>
std::string scalar(const std::array<T, n>& x) {
  return flow_list(x);
}

class Flatten {
 public:
  template <class T, class Ok>
  void operator()(const char* key, T& field, const std::string&, Ok) {
    lines.push_back({path_ + key, key, scalar(field), depth_});
  }
  template <class Section>
  void section(const char* key, Section& section) {
    lines.push_back({path_ + key, key, "", depth_});
    descend(std::string(key) + ".", 1, section);
  }
  template <class Section>
  void optional_section(const char* key, std::optional<Section>& s) {
    if (s)
      section(key, *s);
    else
      lines.push_back({path_ + key, key, "null", depth_});
  }
  template <class Struct>
  void list(const char* key, std::vector<Struct>& items, const std::string&) {
    lines.push_back({path_ + key, key, items.empty() ? "[]" : "", depth_});
    for (size_t i = 0; i < items.size(); ++i) {
      const std::string name = std::string(key) + "[" + std::to_string(i) + "]";
      lines.push_back({path_ + name, "", "", depth_ + 1});
      descend(name + ".", 2, items[i]);
    }
  }
  void map(const char* key, std::map<std::string, std::string>& items, const std::string&) {
    lines.push_back({path_ + key, key, items.empty() ? "{}" : "", depth_});
    for (const auto& [name, text] : items)
      lines.push_back({path_ + key + "." + name, scalar(name), scalar(text), depth_ + 1});
  }

  std::vector<Line> lines;

 private:
  template <class Struct>
  void descend(const std::string& name, int levels, Struct& s) {
    const std::string outer = path_;
    path_ += name;
    depth_ += levels;
    s.visit(*this);
    depth_ -= levels;
    path_ = outer;
  }

  std::string path_;
  int depth_ = 0;
};

template <class Config>
std::vector<Line> flatten(Config config) {  // a copy: visit() takes fields by reference
  Flatten f;
  config.visit(f);
  return f.lines;
}

std::string to_yaml(const std::vector<Line>& lines);
// Key, value in a, value in b of the values that differ; "(absent)" where one lacks the key. Of a
// section or list that only one has, each value in it is named, not its head.
std::vector<std::tuple<std::string, std::string, std::string>> differences(
    const std::vector<Line>& a, const std::vector<Line>& b);

}  // namespace sluice::config
