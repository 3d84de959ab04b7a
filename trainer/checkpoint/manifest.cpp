// trainer/checkpoint/manifest.cpp -- the manifest as JSON with sorted keys, and its checksum.
#include "trainer/checkpoint/manifest.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "model/export/posix_file.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "sluice-checkpoint";

// For people who look into the folder; nothing reads it.
std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

// JSON has no NaN and no infinity: these are strings.
json to_json(double x) {
  return std::isfinite(x) ? json(x) : json(fmt::format("{}", x));
}

double to_double(const json& j) {
  if (!j.is_string()) return j.get<double>();
  const std::string s = j.get<std::string>();
  const double inf = std::numeric_limits<double>::infinity();
  if (s == "inf") return inf;
  if (s == "-inf") return -inf;
  SLUICE_CHECK(s == "nan" || s == "-nan", "expected a number, nan, inf or -inf, got '", s, "'");
  return std::nan("");
}

uint32_t to_crc(const json& j) {
  const std::string s = j.get<std::string>();
  uint32_t crc = 0;
  const auto result = std::from_chars(s.data(), s.data() + s.size(), crc, 16);
  SLUICE_CHECK(result.ec == std::errc() && s == hex(crc), "expected 8 hexadecimal digits, got '", s,
               "'");
  return crc;
}

// Of the document without its own checksum. Keys are sorted and numbers have one shortest text, so
// that parsing and printing gives the same bytes again.
uint32_t checksum(json document) {
  document.erase("crc32");
  const std::string text = document.dump();
  return crc32_of(text.data(), int64_t(text.size()));
}

constexpr Part kParts[] = {Part::weights, Part::optimizer};

const char* key_of(Part part) {
  return part == Part::weights ? "weights" : "optimizer";
}

void read_whole(const json& j, Manifest& m) {
  m.ranks = j.at("ranks").get<int64_t>();
  SLUICE_CHECK(m.ranks > 1 && m.ranks <= 1'000'000, m.ranks, " ranks");
  for (const Part part : kParts)
    for (const json& t : j.at("whole").at(key_of(part)))
      m.whole[part].emplace_back(t.at("name").get<std::string>(), t.at("type").get<std::string>());
}

// Their names: a rank that has nothing of a part has no file.
void check_files(const Manifest& m) {
  SLUICE_CHECK(m.files.contains(kConfigName), "no file ", kConfigName);
  std::set<std::string> known{kConfigName};
  for (const Part part : kParts) {
    if (m.ranks > 1) {
      for (int64_t r = 0; r < m.ranks; ++r) known.insert(file_name(part, int(r), int(m.ranks)));
      continue;
    }
    SLUICE_CHECK(m.files.contains(file_name(part)), "no file ", file_name(part));
    known.insert(file_name(part));
  }
  for (const auto& [name, file] : m.files)
    SLUICE_CHECK(known.contains(name), "a file ", name, " in a checkpoint of ", m.ranks, " ranks");
}

Manifest from_json(const json& j) {
  SLUICE_CHECK(j.is_object() && j.value("format", "") == kFormat, "expected format '", kFormat,
               "'");
  const int64_t version = j.at("version").get<int64_t>();
  SLUICE_CHECK(version == kManifestVersion || version == kShardedManifestVersion, "format version ",
               version, ", this build reads ", kManifestVersion, " and ", kShardedManifestVersion);
  const uint32_t want = to_crc(j.at("crc32")), got = checksum(j);
  SLUICE_CHECK(want == got, "expected crc32 ", hex(want), ", got ", hex(got));

  Manifest m;
  m.meta.step = j.at("step").get<int64_t>();
  m.meta.fingerprint = j.at("fingerprint").get<std::map<std::string, std::string>>();
  m.meta.integers = j.at("integers").get<std::map<std::string, int64_t>>();
  for (const auto& item : j.at("numbers").items())
    m.meta.numbers[item.key()] = to_double(item.value());
  for (const auto& item : j.at("files").items()) {
    ManifestFile file{.bytes = item.value().at("bytes").get<int64_t>(),
                      .crc32 = to_crc(item.value().at("crc32")),
                      .tensors = {}};
    if (item.value().contains("tensors"))
      for (const auto& tensor : item.value().at("tensors").items())
        file.tensors[tensor.key()] = {.type = tensor.value().at("type").get<std::string>(),
                                      .crc32 = to_crc(tensor.value().at("crc32")),
                                      .begin = tensor.value().value("begin", int64_t(0))};
    m.files[item.key()] = std::move(file);
  }
  if (version == kShardedManifestVersion) read_whole(j, m);
  check_files(m);
  return m;
}

}  // namespace

const char* file_name(Part part) {
  return part == Part::weights ? "weights.safetensors" : "optimizer.safetensors";
}

std::string file_name(Part part, int rank, int ranks) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", key_of(part), rank, ranks);
}

bool is_of(const std::string& file, Part part) {
  return file == file_name(part) || file.rfind(cat(key_of(part), "-"), 0) == 0;
}

// Sets what a manifest of many ranks has more.
static void add_whole(json& j, const Manifest& m) {
  j["version"] = kShardedManifestVersion;
  j["ranks"] = m.ranks;
  for (const Part part : kParts) {
    json& list = j["whole"][key_of(part)] = json::array();
    if (const auto types = m.whole.find(part); types != m.whole.end())
      for (const auto& [name, type] : types->second)
        list.push_back({{"name", name}, {"type", type}});
  }
}

std::string format_manifest(const Manifest& m, const std::string& path) {
  try {
    json j = {{"format", kFormat},
              {"version", kManifestVersion},
              {"saved_at", utc_now()},
              {"step", m.meta.step},
              {"fingerprint", m.meta.fingerprint},
              {"integers", m.meta.integers},
              {"numbers", json::object()},
              {"files", json::object()}};
    for (const auto& [key, value] : m.meta.numbers) j["numbers"][key] = to_json(value);
    for (const auto& [name, file] : m.files) {
      json& entry = j["files"][name];
      entry = {{"bytes", file.bytes}, {"crc32", hex(file.crc32)}};
      for (const auto& [tensor, is] : file.tensors) {
        entry["tensors"][tensor] = {{"type", is.type}, {"crc32", hex(is.crc32)}};
        if (m.ranks > 1) entry["tensors"][tensor]["begin"] = is.begin;
      }
    }
    if (m.ranks > 1) add_whole(j, m);
    j["crc32"] = hex(checksum(j));
    return j.dump(1) + "\n";
  } catch (const json::exception& e) {  // a string that is no UTF-8
    fail(__FILE__, __LINE__, path.c_str(), e.what());
  }
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  try {
    return from_json(json::parse(text));
  } catch (const std::exception& e) {  // of the JSON library, or ours
    fail(__FILE__, __LINE__, path.c_str(), e.what());
  }
}

Manifest read_manifest(const CheckpointRef& ref) {
  const std::string path = ref.folder + "/" + kManifestName;
  Manifest m = parse_manifest(read_text(path), path);
  SLUICE_CHECK(m.meta.step == ref.step, path, ": expected step ", ref.step, ", got ", m.meta.step);
  return m;
}

uint32_t extend_crc32(uint32_t crc, const void* data, int64_t bytes) {
  // A null pointer would ask zlib for the initial value instead.
  if (bytes == 0) return crc;
  return uint32_t(::crc32_z(crc, static_cast<const Bytef*>(data), size_t(bytes)));
}

uint32_t crc32_of(const void* data, int64_t bytes) {
  return extend_crc32(0, data, bytes);
}

uint32_t crc32_of_file(const std::string& path, int64_t bytes) {
  const PosixFile file = PosixFile::open(path);
  std::vector<Bytef> block(size_t(std::min<int64_t>(bytes, 4 << 20)));
  uint32_t crc = 0;
  for (int64_t done = 0; done < bytes;) {
    const int64_t n = std::min(bytes - done, int64_t(block.size()));
    file.read(done, block.data(), n);
    crc = extend_crc32(crc, block.data(), n);
    done += n;
  }
  return crc;
}

// All exponent bits set: NaN or infinity. On integers, so that the loop is one of SIMD.
template <class Bits>
static int64_t count_exponents(const Tensor& t, Bits mask) {
  const Bits* x = static_cast<const Bits*>(t.data);
  int64_t count = 0;
  for (int64_t i = 0, n = t.numel(); i < n; ++i) count += (x[i] & mask) == mask;
  return count;
}

int64_t count_nonfinite(const Tensor& t) {
  switch (t.dtype) {
    case DType::f32: return count_exponents<uint32_t>(t, 0x7f800000u);
    case DType::f64: return count_exponents<uint64_t>(t, 0x7ff0000000000000u);
    case DType::bf16: return count_exponents<uint16_t>(t, 0x7f80u);
    default: return 0;
  }
}

std::string hex(uint32_t crc) {
  return fmt::format("{:08x}", crc);
}

}  // namespace sluice
