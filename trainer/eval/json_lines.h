// trainer/eval/json_lines.h -- tasks from JSON lines, texts made of their fields.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace sluice {

struct JsonLine {
  nlohmann::json object;
  std::string where;  // "FILE:12"
};

// The first `limit` objects of a file. Throws with file and line for what is none.
std::vector<JsonLine> read_json_lines(const std::string& path, std::optional<int64_t> limit);

// Throws, naming the fields that there are.
const nlohmann::json& field_of(const JsonLine& line, const std::string& name);
// A string as it is, a number as the file has it.
std::string text_of(const JsonLine& line, const std::string& name);

// `format` with each {NAME} replaced by that field; "{{" and "}}" are braces, "\n" a new line.
std::string fill_in(const std::string& format, const JsonLine& line);

}  // namespace sluice
