// data/text/documents.cpp -- plain text and JSON lines.
#include "data/text/documents.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/base/check.h"

namespace sluice {

static bool ends_with(const std::string& s, const std::string& end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

static std::vector<std::string> split_at_blank_lines(const std::string& text) {
  std::vector<std::string> documents;
  std::string current;
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = text.find('\n', begin);
    const size_t end = newline == std::string::npos ? text.size() : newline + 1;
    if (newline == begin || text.compare(begin, end - begin, "\r\n") == 0) {
      if (!current.empty()) documents.push_back(std::move(current));
      current.clear();
    } else {
      current.append(text, begin, end - begin);
    }
    begin = end;
  }
  if (!current.empty()) documents.push_back(std::move(current));
  return documents;
}

static std::vector<std::string> read_json_lines(const std::string& path, std::istream& in,
                                                const std::string& field) {
  std::vector<std::string> documents;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    SLUICE_CHECK(!json.is_discarded(), path, ":", number, ": expected a JSON object, got \"",
                 line.substr(0, 60), "\"");
    SLUICE_CHECK(json.is_object() && json.contains(field), path, ":", number,
                 ": expected an object with \"", field, "\", got ", line.substr(0, 60));
    SLUICE_CHECK(json[field].is_string(), path, ":", number, ": ", field,
                 ": expected a string, got ", json[field].dump().substr(0, 60));
    documents.push_back(json[field].get<std::string>());
  }
  return documents;
}

std::vector<std::string> read_documents(const std::string& path, const TextOptions& options) {
  // An ifstream opens a folder and reads nothing from it.
  SLUICE_CHECK(!std::filesystem::is_directory(path), path, ": Is a directory");
  std::ifstream in(path, std::ios::binary);
  SLUICE_CHECK(in, path, ": ", std::strerror(errno));
  std::vector<std::string> documents;
  if (ends_with(path, ".jsonl") || ends_with(path, ".json")) {
    documents = read_json_lines(path, in, options.field);
  } else {
    std::ostringstream all;
    all << in.rdbuf();
    const std::string text = all.str();
    if (options.split == TextSplit::blank_lines)
      documents = split_at_blank_lines(text);
    else if (!text.empty())
      documents.push_back(text);
  }
  SLUICE_CHECK(!documents.empty(), path, ": no text in it");
  return documents;
}

HeldOut hold_out_tail(std::vector<std::string> documents, double fraction) {
  SLUICE_CHECK(fraction >= 0 && fraction < 1, "held-out fraction is ", fraction);
  size_t total = 0, seen = 0;
  for (const std::string& d : documents) total += d.size();
  size_t cut = total - size_t(std::llround(double(total) * fraction));
  HeldOut out;
  for (std::string& d : documents) {
    const size_t end = seen + d.size();
    // Not inside of a UTF-8 character, which has at most three bytes after its first.
    for (int i = 0; i < 3 && cut > seen && cut < end && (d[cut - seen] & 0xC0) == 0x80; ++i) --cut;
    if (end <= cut) {
      out.train.push_back(std::move(d));
    } else if (seen >= cut) {
      out.valid.push_back(std::move(d));
    } else {
      out.train.push_back(d.substr(0, cut - seen));
      out.valid.push_back(d.substr(cut - seen));
    }
    seen = end;
  }
  return out;
}

}  // namespace sluice
