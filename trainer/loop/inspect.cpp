// trainer/loop/inspect.cpp -- the report as JSON.
#include "trainer/loop/inspect.h"

#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "kernels/tensor/buffer.h"
#include "model/export/posix_file.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/checkpoint/tensors.h"
#include "trainer/loop/config.h"
#include "trainer/loop/inspect_files.h"
#include "trainer/loop/value_stats.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kBlock = 1 << 20;  // elements read at a time

int64_t disk_bytes(const std::string& folder) {
  int64_t bytes = 0;
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return 0;
  for (const std::string& name : names_in(folder))
    if (::stat((folder + "/" + name).c_str(), &status) == 0) bytes += status.st_size;
  return bytes;
}

Json tensor_json(const SafetensorsEntry& e, const ValueStats& s, uint32_t crc32,
                 std::optional<uint32_t> want) {
  std::string checksum = "not in the manifest";
  if (want) checksum = *want == crc32 ? "right" : "WRONG";
  Json j = {{"name", e.name}, {"type", to_string(e)}, {"checksum", checksum}};
  add_values(s, j);
  return j;
}

int64_t part_bytes(const std::string& folder, Part part) {
  int64_t bytes = 0;
  struct stat status {};
  for (const std::string& name : names_in(folder))
    if (is_of(name, part) && ::stat((folder + "/" + name).c_str(), &status) == 0)
      bytes += status.st_size;
  return bytes;
}

// Of a checkpoint whose manifest cannot be read, the file of one rank can. `done` of `all` bytes
// have been read before.
Json part_json(const CheckpointRef& ref, Part which, bool has_manifest, int64_t done, int64_t all,
               const InspectOptions& options) {
  Json part = {{"bytes", 0}, {"elements", 0}, {"tensors", Json::array()}};
  try {
    std::unique_ptr<const CheckpointTensors> saved;
    std::unique_ptr<const SafetensorsReader> file;
    if (has_manifest)
      saved = std::make_unique<const CheckpointTensors>(ref, which);
    else
      file = std::make_unique<const SafetensorsReader>(file_of(ref, which));
    const TensorSource& source = saved ? static_cast<const TensorSource&>(*saved) : *file;
    const Buffer block(DType::f64, {kBlock});
    int64_t elements = 0;
    for (const SafetensorsEntry& e : source.entries()) {
      ValueStats s;
      uint32_t crc32 = 0;
      for (int64_t at = 0; at < e.numel(); at += kBlock) {
        const Tensor t = make_tensor(block.view().data, e.dtype, Device::cpu,
                                     {std::min(kBlock, e.numel() - at)});
        source.read_slice(e.name, at, t);
        crc32 = extend_crc32(crc32, t.data, t.bytes());
        s.add(t);
        options.progress(done += t.bytes(), all);
      }
      part["tensors"].push_back(
          tensor_json(e, s, crc32, saved ? saved->crc32(e.name) : std::nullopt));
      elements += e.numel();
    }
    part["elements"] = elements;
    part["bytes"] = part_bytes(ref.folder, which);
  } catch (const Error& e) {
    part["problem"] = e.what();
  }
  return part;
}

Json config_json(const std::string& path) {
  Json list = Json::array();
  const auto config = config::load_string<Config>(read_text(path), path);
  for (const auto& [key, standard, value] : config::diff(Config{}, config))
    list.push_back({{"key", key}, {"value", value}, {"default", standard}});
  return list;
}

Json checkpoint_json(const CheckpointRef& ref, const InspectOptions& options) {
  const std::vector<std::string> problems = find_problems(ref, Verify::contents);
  Json j = {{"folder", ref.folder},
            {"step", ref.step},
            {"state", problems.empty() ? "valid" : "broken"},
            {"problems", problems},
            {"bytes", disk_bytes(ref.folder)}};
  Manifest manifest;
  bool readable = false;
  try {
    const std::string path = ref.folder + "/" + kManifestName, text = read_text(path);
    manifest = parse_manifest(text, path);
    readable = true;
    j["saved_at"] = Json::parse(text).value("saved_at", "");
    j["ranks"] = manifest.ranks;
    j["fingerprint"] = manifest.meta.fingerprint;
    j["integers"] = manifest.meta.integers;
    for (const auto& [key, value] : manifest.meta.numbers) j["numbers"][key] = json_number(value);
  } catch (const Error&) {  // among the problems already
  }
  try {
    j["config"] = config_json(ref.folder + "/" + kConfigName);
  } catch (const Error& e) {
    j["config_problem"] = e.what();
  }
  const int64_t wide = part_bytes(ref.folder, Part::weights);
  const int64_t all = wide + part_bytes(ref.folder, Part::optimizer);
  j["weights"] = part_json(ref, Part::weights, readable, 0, all, options);
  j["optimizer"] = part_json(ref, Part::optimizer, readable, wide, all, options);
  options.progress(all, all);
  return j;
}

// Kept for ever, by the config that it was saved with.
bool is_milestone(const CheckpointRef& ref) {
  try {
    const std::string path = ref.folder + "/" + kConfigName;
    const auto every =
        config::load_string<Config>(read_text(path), path).checkpoint.keep_every_steps;
    return every && ref.step % *every == 0;
  } catch (const Error&) {
    return false;
  }
}

Json list_json(const std::vector<CheckpointRef>& refs, Verify verify) {
  Json list = Json::array();
  for (const CheckpointRef& ref : refs) {
    const std::vector<std::string> problems = find_problems(ref, verify);
    list.push_back({{"folder", ref.folder},
                    {"step", ref.step},
                    {"state", problems.empty() ? "valid" : "broken"},
                    {"milestone", is_milestone(ref)},
                    {"bytes", disk_bytes(ref.folder)},
                    {"problems", problems}});
  }
  return list;
}

}  // namespace

nlohmann::ordered_json inspect(const std::string& path, const InspectOptions& options) {
  if (is_of_engines(path)) return inspect_files(path, options);
  Json report = {{"path", path}, {"run", nullptr}};
  const NamedPath named = name_path(path);
  if (named.one) {
    report["checkpoint"] = checkpoint_json(*named.one, options);
    return report;
  }
  const std::vector<CheckpointRef> refs = list_checkpoints(named.run_dir);
  if (refs.empty()) throw Error(path + ": no checkpoint here");
  report["run"] = {{"verified", options.list == Verify::contents ? "contents" : "sizes"},
                   {"checkpoints", list_json(refs, options.list)}};
  const auto good = find_newest_valid(named.run_dir, nullptr);
  report["checkpoint"] = checkpoint_json(good.value_or(refs[0]), options);
  return report;
}

}  // namespace sluice
