// trainer/eval/json_lines.cpp -- one object a line.
#include "trainer/eval/json_lines.h"

#include <sstream>

#include "kernels/base/check.h"
#include "model/export/posix_file.h"

namespace sluice {

using nlohmann::json;

static std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 60);
}

std::vector<JsonLine> read_json_lines(const std::string& path, std::optional<int64_t> limit) {
  std::istringstream in(read_text(path));
  std::vector<JsonLine> lines;
  int64_t number = 0;
  for (std::string text; std::getline(in, text);) {
    if (limit && int64_t(lines.size()) == *limit) break;
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    JsonLine line{json::parse(text, nullptr, false), cat(path, ":", number)};
    if (!line.object.is_object())
      throw Error(cat(line.where, ": expected a JSON object, got \"", text.substr(0, 60), "\""));
    lines.push_back(std::move(line));
  }
  if (lines.empty()) throw Error(path + ": no JSON lines in it");
  return lines;
}

const json& field_of(const JsonLine& line, const std::string& name) {
  const auto it = line.object.find(name);
  if (it != line.object.end()) return *it;
  std::string there;
  for (const auto& [key, value] : line.object.items()) there += (there.empty() ? "" : ", ") + key;
  throw Error(cat(line.where, ": no field \"", name, "\", there are: ", there));
}

std::string text_of(const JsonLine& line, const std::string& name) {
  const json& value = field_of(line, name);
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number())
    throw Error(cat(line.where, ": ", name, ": expected a string or a number, got ", shown(value)));
  return value.dump();
}

std::string fill_in(const std::string& format, const JsonLine& line) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    const std::string two = format.substr(i, 2);
    if (two == "{{" || two == "}}" || two == "\\n") {
      out += two == "\\n" ? '\n' : two[0];
      ++i;
    } else if (format[i] == '{') {
      const size_t end = format.find('}', i);
      if (end == std::string::npos) throw Error("\"" + format + "\": a { without its }");
      out += text_of(line, format.substr(i + 1, end - i - 1));
      i = end;
    } else if (format[i] == '}') {
      throw Error("\"" + format + "\": a } without its {");
    } else {
      out += format[i];
    }
  }
  return out;
}

}  // namespace sluice
