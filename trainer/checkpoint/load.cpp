// trainer/checkpoint/load.cpp -- find the newest checkpoint that is intact, and load it.
#include <algorithm>
#include <set>

#include "kernels/tensor/buffer.h"
#include "model/export/posix_file.h"
#include "model/export/safetensors.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {
namespace {

std::string describe(const char* what, const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  if (names.empty()) return "";
  std::string text = cat("; ", names.size(), " ", what, ":");
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) text += " '" + names[i] + "'";
  return names.size() > kShown ? text + " ..." : text;
}

// Which tensors of a file are not what was saved. Throws if the header is not readable.
std::string changed_tensors(const std::string& path, const ManifestFile& file) {
  const SafetensorsReader reader(path);
  std::vector<std::string> changed;
  for (const SafetensorsEntry& e : reader.entries()) {
    Buffer bytes(e.dtype, {e.numel()});
    reader.read_slice(e.name, 0, bytes.view());
    const auto want = file.tensors.find(e.name);
    if (want == file.tensors.end() ||
        want->second != crc32_of(bytes.view().data, bytes.view().bytes()))
      changed.push_back(e.name);
  }
  return describe("tensors changed", changed);
}

// Empty if the file is what the manifest says.
std::string problem_of(const std::string& path, const ManifestFile& file, Verify verify) {
  const int64_t bytes = PosixFile::open(path).size();
  if (bytes != file.bytes) return cat(path, ": expected ", file.bytes, " bytes, got ", bytes);
  if (verify == Verify::sizes) return "";
  const uint32_t crc = crc32_of_file(path, bytes);
  if (crc == file.crc32) return "";
  std::string text = cat(path, ": expected crc32 ", hex(file.crc32), ", got ", hex(crc));
  if (file.tensors.empty()) return text;
  try {
    text += changed_tensors(path, file);
  } catch (const Error& e) {
    text += cat("; ", e.what());
  }
  return text;
}

void check_names(const SafetensorsReader& reader, std::span<const NamedTensor> into) {
  std::vector<std::string> missing, extra;
  std::set<std::string> wanted;
  for (const NamedTensor& n : into) {
    SLUICE_CHECK(wanted.insert(n.name).second, "tensor '", n.name, "' is asked for twice");
    if (!reader.find(n.name)) missing.push_back(n.name);
  }
  for (const SafetensorsEntry& e : reader.entries())
    if (!wanted.contains(e.name)) extra.push_back(e.name);
  SLUICE_CHECK(missing.empty() && extra.empty(), reader.path(), ": the names differ",
               describe("missing in the file", missing), describe("in the file only", extra));
}

}  // namespace

std::string file_of(const CheckpointRef& ref, Part part) {
  return ref.folder + "/" + file_name(part);
}

std::vector<std::string> find_problems(const CheckpointRef& ref, Verify verify) {
  std::vector<std::string> problems;
  Manifest manifest;
  try {
    manifest = read_manifest(ref);
  } catch (const Error& e) {
    return {e.what()};
  }
  for (const auto& [name, file] : manifest.files) {
    try {
      const std::string problem = problem_of(ref.folder + "/" + name, file, verify);
      if (!problem.empty()) problems.push_back(problem);
    } catch (const Error& e) {  // missing, not readable
      problems.push_back(e.what());
    }
  }
  return problems;
}

std::optional<CheckpointRef> find_newest_valid(const std::string& run_dir,
                                               std::vector<std::string>* problems, Verify verify) {
  for (const CheckpointRef& ref : list_checkpoints(run_dir)) {
    const std::vector<std::string> found = find_problems(ref, verify);
    if (found.empty()) return ref;
    if (problems) problems->insert(problems->end(), found.begin(), found.end());
  }
  return std::nullopt;
}

CheckpointMeta load_meta(const CheckpointRef& ref) {
  const Manifest manifest = read_manifest(ref);
  const std::string path = ref.folder + "/" + kConfigName;
  const std::string problem = problem_of(path, manifest.files.at(kConfigName), Verify::contents);
  SLUICE_CHECK(problem.empty(), problem);
  CheckpointMeta meta = manifest.meta;
  meta.config_yaml = read_text(path);
  return meta;
}

void load_tensors(const CheckpointRef& ref, Part part, std::span<const NamedTensor> into) {
  const Manifest manifest = read_manifest(ref);
  const ManifestFile& file = manifest.files.at(file_name(part));
  const SafetensorsReader reader(file_of(ref, part));
  check_names(reader, into);
  for (const auto& [name, t] : into) {
    SLUICE_CHECK(t.dense(), reader.path(), ": tensor '", name, "' is ", to_string(t),
                 ", expected a dense one");
    reader.read(name, t);
    const auto want = file.tensors.find(name);
    SLUICE_CHECK(want != file.tensors.end(), reader.path(), ": tensor '", name,
                 "' is not in the manifest");
    const uint32_t got = crc32_of(t.data, t.bytes());
    SLUICE_CHECK(got == want->second, reader.path(), ": tensor '", name, "': expected crc32 ",
                 hex(want->second), ", got ", hex(got));
  }
}

}  // namespace sluice
