// trainer/checkpoint/load.cpp -- find the newest checkpoint that is intact, and load it.
#include <algorithm>
#include <set>

#include "kernels/tensor/buffer.h"
#include "model/export/posix_file.h"
#include "model/export/safetensors.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/verify.h"

namespace sluice {
namespace {

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
      const auto found = problems_of(ref.folder + "/" + name, file, verify);
      problems.insert(problems.end(), found.begin(), found.end());
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

CheckpointRef find_checkpoint(const std::string& path, std::vector<std::string>* problems) {
  const NamedPath named = name_path(path);
  std::vector<std::string> found;
  std::optional<CheckpointRef> ref = named.one;
  if (ref)
    found = find_problems(*ref, Verify::contents);
  else
    ref = find_newest_valid(named.run_dir, &found);
  if (!ref || (named.one && !found.empty())) {
    std::string text = path + (named.one       ? ": this checkpoint is broken"
                               : found.empty() ? ": no checkpoint here"
                                               : ": no intact checkpoint here");
    for (const std::string& p : found) text += "\n  " + p;
    throw Error(text);
  }
  if (problems) problems->insert(problems->end(), found.begin(), found.end());
  return *ref;
}

CheckpointMeta load_meta(const CheckpointRef& ref) {
  const Manifest manifest = read_manifest(ref);
  const std::string path = ref.folder + "/" + kConfigName;
  const auto problems = problems_of(path, manifest.files.at(kConfigName), Verify::contents);
  SLUICE_CHECK(problems.empty(), problems[0]);
  CheckpointMeta meta = manifest.meta;
  meta.config_yaml = read_text(path);
  return meta;
}

static Buffer host_like(Tensor t) {
  t.device = Device::cpu;
  return Buffer(t);
}

void load_tensors(const CheckpointRef& ref, Part part, std::span<const NamedTensor> into) {
  const Manifest manifest = read_manifest(ref);
  const ManifestFile& file = manifest.files.at(file_name(part));
  const SafetensorsReader reader(file_of(ref, part));
  check_names(reader, into);
  for (const auto& [name, t] : into) {
    SLUICE_CHECK(t.dense(), reader.path(), ": tensor '", name, "' is ", to_string(t),
                 ", expected a dense one");
    const Buffer staged = t.device == Device::cpu ? Buffer() : host_like(t);
    const Tensor& host = staged.view() ? staged.view() : t;
    reader.read(name, host);
    const auto want = file.tensors.find(name);
    SLUICE_CHECK(want != file.tensors.end(), reader.path(), ": tensor '", name,
                 "' is not in the manifest");
    const uint32_t got = crc32_of(host.data, host.bytes());
    SLUICE_CHECK(got == want->second.crc32, reader.path(), ": tensor '", name, "': expected crc32 ",
                 hex(want->second.crc32), ", got ", hex(got));
    const int64_t bad = count_nonfinite(host);
    SLUICE_CHECK(bad == 0, reader.path(), ": tensor '", name, "': ", bad, " of ", t.numel(),
                 " elements are not finite");
    if (staged.view()) copy(host, t);
  }
}

}  // namespace sluice
