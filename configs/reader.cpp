// configs/reader.cpp -- decoding, strays and the wording of problems.
#include "configs/reader.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "kernels/base/nearest.h"

namespace sluice::config {

std::string read_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) throw Error(cat(file, ": ", std::strerror(errno)));
  return text.str();
}

// "a.b.0.c=value" into the tree; a missing section is made.
static void apply(Document& d, const std::string& override_text) {
  const std::string shown = "--set " + override_text;
  const size_t equals = override_text.find('=');
  if (equals == std::string::npos || equals == 0) {
    d.problems.push_back({0, 0, shown + ": expected key=value"});
    return;
  }
  const std::string key = override_text.substr(0, equals);
  YAML::Node value;
  try {
    value = YAML::Load(override_text.substr(equals + 1));
  } catch (const YAML::Exception& e) {
    d.problems.push_back({0, 0, shown + ": " + e.msg});
    return;
  }
  std::vector<std::string> parts;
  std::istringstream split(key);
  for (std::string part; std::getline(split, part, '.');) parts.push_back(part);

  YAML::Node at = d.root;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    YAML::Node next;
    if (at.IsSequence()) {
      size_t index = at.size();
      std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), index);
      if (index >= at.size()) {
        d.problems.push_back({0, 0, cat(shown, ": expected an index below ", at.size(), ", got \"",
                                        parts[i], "\"")});
        return;
      }
      next.reset(at[index]);
    } else {
      if (!at[parts[i]].IsDefined() || at[parts[i]].IsNull()) at[parts[i]] = YAML::Node(YAML::NodeType::Map);
      next.reset(at[parts[i]]);
    }
    if (!next.IsMap() && !next.IsSequence()) {
      d.problems.push_back({0, 0, cat(shown, ": \"", parts[i], "\" is no section")});
      return;
    }
    at.reset(next);
  }
  at[parts.back()] = value;
  d.overrides.push_back({key, shown});
}

Document parse(const std::string& text, const std::string& label,
               const std::vector<std::string>& overrides) {
  Document d{label, {}, {}, {}};
  try {
    d.root = YAML::Load(text);
  } catch (const YAML::Exception& e) {
    throw Error(cat(label, ":", e.mark.line + 1, ":", e.mark.column + 1, ": ", e.msg));
  }
  if (!d.root.IsDefined() || d.root.IsNull()) d.root = YAML::Node(YAML::NodeType::Map);
  if (!d.root.IsMap()) throw Error(label + ":1:1: expected a mapping of sections");
  for (const std::string& o : overrides) apply(d, o);
  return d;
}

static std::string without_underscores(const std::string& s) {
  std::string out;
  for (const char c : s)
    if (c != '_') out += c;
  return out;
}

template <class T>
static bool whole_number(const YAML::Node& node, T& out) {
  if (!node.IsScalar()) return false;
  const std::string s = without_underscores(node.Scalar());
  const char* begin = s.data() + (s.size() > 1 && s[0] == '+');
  const auto r = std::from_chars(begin, s.data() + s.size(), out);
  return !s.empty() && r.ec == std::errc() && r.ptr == s.data() + s.size();
}

bool decode(const YAML::Node& node, int64_t& out) {
  return whole_number(node, out);
}
bool decode(const YAML::Node& node, double& out) {
  return whole_number(node, out) && std::isfinite(out);
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
  const YAML::Node& node = node_;
  const YAML::Node at = node[key];
  return at.IsDefined() ? at : node_;
}

void Reader::map(const char* key, std::map<std::string, std::string>& items,
                 const std::string& expected) {
  const YAML::Node value = find(key);
  if (!value.IsDefined()) return;
  if (!value.IsMap()) return report_value(value, key, expected);
  items.clear();
  for (const auto& entry : value) {
    const std::string name = entry.first.Scalar();
    std::string text;
    if (items.count(name))
      report(entry.first, cat(key, ".", name), "given twice");
    else if (!decode(entry.second, text))
      report_value(entry.second, cat(key, ".", name), expected);
    else
      items[name] = text;
  }
}

void Reader::report(const YAML::Node& at, const std::string& key, const std::string& text) {
  const std::string full = path_ + key;
  for (const auto& [set_key, shown] : document_.overrides) {
    if (full == set_key || full.rfind(set_key + ".", 0) == 0) {
      document_.problems.push_back({0, 0, cat(shown, ": ", full, ": ", text)});
      return;
    }
  }
  const YAML::Mark mark = at.Mark();  // counts from 0, editors from 1
  document_.problems.push_back({mark.line + 1, mark.column + 1,
                                cat(document_.label, ":", mark.line + 1, ":", mark.column + 1, ": ",
                                    full, ": ", text)});
}

void Reader::report_value(const YAML::Node& at, const std::string& key, const std::string& expected) {
  const std::string got = at.IsNull()     ? "null"
                          : at.IsScalar() ? "\"" + at.Scalar() + "\""
                          : at.IsMap()    ? "a section"
                                          : "a list";
  report(at, key, cat("expected ", expected, ", got ", got));
}

void Reader::reject_strays() {
  std::map<std::string, int> first_line;
  for (const auto& entry : node_) {
    const std::string key = entry.first.Scalar();
    const auto [seen, fresh] = first_line.emplace(key, entry.first.Mark().line + 1);
    if (!fresh) {  // yaml-cpp itself takes one of the two, silently
      report(entry.first, key, cat("given twice (first at line ", seen->second, ")"));
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
