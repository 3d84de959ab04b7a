// configs/document.cpp -- a file and its overrides as a tree, and where the file is no YAML.
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <yaml-cpp/eventhandler.h>

#include "configs/reader.h"

namespace sluice::config {

std::string read_file(const std::string& file) {
  // An ifstream opens a folder and reads nothing from it: a config of defaults.
  if (std::filesystem::is_directory(file)) throw Error(file + ": Is a directory");
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) throw Error(cat(file, ": ", std::strerror(errno)));
  return text.str();
}

static std::vector<std::string> split_at_dots(const std::string& key) {
  std::vector<std::string> parts(1);
  for (const char c : key) {
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

static size_t list_index(const std::string& part, size_t size) {
  size_t index = 0;
  const auto r = std::from_chars(part.data(), part.data() + part.size(), index);
  if (r.ec != std::errc() || r.ptr != part.data() + part.size() || index >= size)
    throw Error(cat("expected an index below ", size, ", got \"", part, "\""));
  return index;
}

// Writes `value` into the tree at `parts`; a missing section is made. Returns the key as problems
// spell it.
static std::string write(YAML::Node at, const std::vector<std::string>& parts,
                         const YAML::Node& value) {
  std::string key;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    if (at.IsSequence()) {
      const size_t index = list_index(parts[i], at.size());
      key += cat("[", index, "]");
      if (last)
        at[index] = value;
      else
        at.reset(at[index]);
    } else if (at.IsMap()) {
      key += (i > 0 ? "." : "") + parts[i];
      YAML::Node next = at[parts[i]];
      if (last)
        next = value;
      else if (!next.IsDefined() || next.IsNull())
        next = YAML::Node(YAML::NodeType::Map);
      at.reset(next);
    } else {
      throw Error(key + ": no section, so it has no key \"" + parts[i] + "\"");
    }
  }
  return key;
}

// "a.b.0.c=value", value in YAML.
static Setting command_line_setting(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) throw Error("expected section.key=value");
  return {text.substr(0, equals), YAML::Load(text.substr(equals + 1)), "--set " + text};
}

// `value` is the document's own from here on: two documents must not share nodes.
static void apply(Document& d, const std::string& key, const std::string& from,
                  const YAML::Node& value) {
  const std::vector<std::string> parts = split_at_dots(key);
  if (std::find(parts.begin(), parts.end(), "") != parts.end())
    throw Error("expected section.key=value");
  d.overrides.push_back({write(d.root, parts, value), from, value});
}

// Runs `f`; its error is a problem of `from`.
template <class F>
static void collect(Document& d, const std::string& from, F f) {
  try {
    f();
  } catch (const YAML::Exception& e) {
    d.problems.push_back({0, 0, from + ": " + e.msg});
  } catch (const Error& e) {
    d.problems.push_back({0, 0, from + ": " + e.what()});
  }
}

static bool ends_inside_a_quote(const std::string& text) {
  try {
    YAML::LoadAll(text + "\n#");
  } catch (const YAML::Exception& e) {
    return e.msg == YAML::ErrorMsg::EOF_IN_SCALAR;
  }
  return false;
}

// yaml-cpp's words lead nowhere for two common slips: a tab that indents, and a quote that is never
// closed, which it notices at the end of the file.
static Error syntax_error(const std::string& text, const std::string& label,
                          const YAML::Exception& e) {
  std::istringstream lines(text);
  std::string line;
  for (int i = 0; i <= e.mark.line; ++i) std::getline(lines, line);
  const size_t tab = line.substr(0, line.find_first_not_of(" \t")).find('\t');
  if (tab != std::string::npos)
    return Error(cat(label, ":", e.mark.line + 1, ":", tab + 1, ": expected spaces, got a tab"));
  if (e.msg != YAML::ErrorMsg::EOF_IN_SCALAR)
    return Error(cat(label, ":", e.mark.line + 1, ":", e.mark.column + 1, ": ", e.msg));
  size_t begin = text.size();  // of the line with the quote: everything before it is closed
  do {
    begin = begin == 0 ? std::string::npos : text.rfind('\n', begin - 1);
  } while (begin != std::string::npos && ends_inside_a_quote(text.substr(0, begin)));
  begin = begin == std::string::npos ? 0 : begin + 1;
  const auto number = std::count(text.begin(), text.begin() + int64_t(begin), '\n') + 1;
  const size_t quote = text.substr(begin, text.find('\n', begin) - begin).find_last_of("\"'");
  return Error(cat(label, ":", number, ":", quote + 1, ": a quote that is never closed"));
}

// Throws at a second document, unless it is empty and the last. By hand, since LoadAll() gives a
// text that begins with a comma one empty document after the other, without end; Load() drops all
// but the first.
class OneDocument final : public YAML::EventHandler {
 public:
  static void check(const std::string& text) {
    std::istringstream in(text);
    YAML::Parser parser(in);
    OneDocument events;
    while (parser.HandleNextDocument(events)) {
    }
  }

  void OnDocumentStart(const YAML::Mark& at) override {
    if (++documents_ > 2) fail(at);
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark& at, YAML::anchor_t) override { node(at); }
  void OnScalar(const YAML::Mark& at, const std::string&, YAML::anchor_t,
                const std::string&) override {
    node(at);
  }
  void OnSequenceStart(const YAML::Mark& at, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    node(at);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& at, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    node(at);
  }
  void OnMapEnd() override {}

 private:
  void node(const YAML::Mark& at) const {
    if (documents_ > 1) fail(at);
  }
  [[noreturn]] static void fail(const YAML::Mark& at) {
    throw YAML::Exception(at, "expected one YAML document, got more");
  }
  int documents_ = 0;
};

static Document parse_text(const std::string& text, const std::string& label) {
  Document d{label, {}, {}, {}};
  try {
    // The comment: at a newline before the end of the file, yaml-cpp forgives a missing quote and
    // so swallows every key after it.
    const std::string all = text + (text.empty() || text.back() == '\n' ? "#" : "\n#");
    OneDocument::check(all);
    d.root = YAML::Load(all);
  } catch (const YAML::Exception& e) {
    throw syntax_error(text, label, e);
  }
  if (!d.root.IsDefined() || d.root.IsNull()) d.root = YAML::Node(YAML::NodeType::Map);
  if (!d.root.IsMap()) throw Error(label + ":1:1: expected a mapping of sections");
  return d;
}

Document parse(const std::string& text, const std::string& label,
               const std::vector<std::string>& overrides) {
  Document d = parse_text(text, label);
  for (const std::string& o : overrides)
    collect(d, "--set " + o, [&] {
      const Setting s = command_line_setting(o);
      apply(d, s.key, s.from, s.value);
    });
  return d;
}

Document parse_with(const std::string& text, const std::string& label,
                    const std::vector<Setting>& settings) {
  Document d = parse_text(text, label);
  for (const Setting& s : settings)
    collect(d, s.from + ": " + s.key, [&] { apply(d, s.key, s.from, YAML::Clone(s.value)); });
  return d;
}

}  // namespace sluice::config
