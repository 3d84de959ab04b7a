// model/export/safetensors_header.h -- the JSON header of a .safetensors file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/export/safetensors.h"

namespace sluice {

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // ordered by begin
  std::map<std::string, std::string> metadata;
};

// Of the reference implementation; a longer header is refused before it is read.
constexpr int64_t kMaxHeaderBytes = 100'000'000;

// `path` is for messages; the file has `data_bytes` bytes after the header.
SafetensorsHeader parse_header(const std::string& json, int64_t data_bytes,
                               const std::string& path);

// JSON, padded with spaces so that 8 + its length is a multiple of 8. `path` is for messages.
std::string format_header(const SafetensorsHeader& header, const std::string& path);

// What a tensor may be called: 1 to 1024 bytes without control characters.
void check_tensor_name(const std::string& name, const std::string& path);

}  // namespace sluice
