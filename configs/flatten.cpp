// configs/flatten.cpp -- YAML text from lines.
#include "configs/flatten.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>

namespace sluice::config {

std::string scalar(int64_t x) {
  return fmt::format("{}", x);
}
std::string scalar(int x) {
  return fmt::format("{}", x);
}
std::string scalar(double x) {
  return fmt::format("{}", x);
}
std::string scalar(float x) {
  return fmt::format("{}", x);
}
std::string scalar(bool x) {
  return x ? "true" : "false";
}

// Plain only for text that no YAML reader takes for anything else.
std::string scalar(const std::string& x) {
  const bool plain = !x.empty() && std::all_of(x.begin(), x.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '/' || c == '.' || c == '-';
  }) && std::isalpha(static_cast<unsigned char>(x[0]));
  static const char* const kWords[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  std::string lower = x;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const bool word = std::find(std::begin(kWords), std::end(kWords), lower) != std::end(kWords);
  if (plain && !word) return x;
  YAML::Emitter out;
  out << YAML::DoubleQuoted << x;
  return out.c_str();
}

std::string to_yaml(const std::vector<Line>& lines) {
  std::string out;
  bool item = false;  // the line after a list item's head carries its dash
  for (const Line& l : lines) {
    if (l.key.empty()) {
      item = true;
      continue;
    }
    const int depth = item ? l.depth - 1 : l.depth;
    out += std::string(size_t(2 * depth), ' ') + (item ? "- " : "") + l.key + ":" +
           (l.value.empty() ? "" : " " + l.value) + "\n";
    item = false;
  }
  return out;
}

std::vector<std::tuple<std::string, std::string, std::string>> differences(
    const std::vector<Line>& a, const std::vector<Line>& b) {
  auto value = [](const std::vector<Line>& lines, const std::string& path) -> std::string {
    for (const Line& l : lines)
      if (l.path == path) return l.value;
    return "(absent)";
  };
  std::vector<std::tuple<std::string, std::string, std::string>> out;
  for (const Line& l : a) {
    const std::string other = value(b, l.path);
    if (l.value != other && !l.value.empty() && !other.empty())
      out.emplace_back(l.path, l.value, other);
  }
  for (const Line& l : b)
    if (!l.value.empty() && value(a, l.path) == "(absent)")
      out.emplace_back(l.path, "(absent)", l.value);
  return out;
}

}  // namespace sluice::config
