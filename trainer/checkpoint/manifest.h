// trainer/checkpoint/manifest.h -- manifest.json: what a complete checkpoint consists of.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"

namespace sluice {

constexpr int kManifestVersion = 2;         // of one rank: a file a part, with whole tensors
constexpr int kShardedManifestVersion = 3;  // of many: files of pieces, and what they are pieces of

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kConfigName = "config.yaml";
const char* file_name(Part part);                       // "weights.safetensors"
std::string file_name(Part part, int rank, int ranks);  // "weights-00003-of-00008.safetensors"
bool is_of(const std::string& file, Part part);         // by its name

struct ManifestTensor {
  std::string type;  // "f32 [3, 5]"; of a piece "f32 [15]"
  uint32_t crc32 = 0;
  int64_t begin = 0;  // of a piece: its first element in the whole tensor
};

struct ManifestFile {
  int64_t bytes = 0;
  uint32_t crc32 = 0;
  std::map<std::string, ManifestTensor> tensors;  // .safetensors only
};

struct Manifest {
  CheckpointMeta meta;  // config_yaml is empty: it is a file of its own
  std::map<std::string, ManifestFile> files;
  int64_t ranks = 1;
  // Of many ranks: names and types of the whole tensors, in the order of the parameters.
  using Types = std::vector<std::pair<std::string, std::string>>;
  std::map<Part, Types> whole{};
};

// The text ends in a checksum of the rest: a changed digit in the loader's state is found too.
std::string format_manifest(const Manifest& manifest, const std::string& path);
Manifest parse_manifest(const std::string& text, const std::string& path);
Manifest read_manifest(const CheckpointRef& ref);

uint32_t crc32_of(const void* data, int64_t bytes);
uint32_t extend_crc32(uint32_t crc, const void* data, int64_t bytes);  // of what came before
uint32_t crc32_of_file(const std::string& path, int64_t bytes);        // of its first `bytes`
std::string hex(uint32_t crc);                                         // "00c0ffee"
int64_t count_nonfinite(const Tensor& t);                              // NaN and infinity; dense

}  // namespace sluice
