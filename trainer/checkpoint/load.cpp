// trainer/checkpoint/load.cpp -- find the newest checkpoint that is intact, and load it.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/tensor/buffer.h"
#include "model/export/posix_file.h"
#include "model/export/safetensors.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/exchange.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/tensors.h"
#include "trainer/checkpoint/verify.h"

namespace sluice {
namespace {

using nlohmann::json;

void check_names(const TensorSource& source, std::span<const NamedTensor> into) {
  std::vector<std::string> missing, extra;
  std::set<std::string> wanted;
  for (const NamedTensor& n : into) {
    SLUICE_CHECK(wanted.insert(n.name).second, "tensor '", n.name, "' is asked for twice");
    if (!source.find(n.name)) missing.push_back(n.name);
  }
  for (const SafetensorsEntry& e : source.entries())
    if (!wanted.contains(e.name)) extra.push_back(e.name);
  SLUICE_CHECK(missing.empty() && extra.empty(), source.path(), ": the names differ",
               describe("missing in the file", missing), describe("in the file only", extra));
}

Buffer host_like(Tensor t) {
  t.device = Device::cpu;
  return Buffer(t);
}

void load(const CheckpointTensors& source, const NamedTensor& n) {
  const Tensor& t = n.t;
  SLUICE_CHECK(t.dense(), source.path(), ": tensor '", n.name, "' is ", to_string(t),
               ", expected a dense one");
  const std::string want = to_string(entry_of(n)), there = to_string(*source.find(n.name));
  SLUICE_CHECK(want == there, source.path(), ": tensor '", n.name, "': expected ", want,
               ", the file has ", there);
  if (t.numel() == 0) return;
  const Buffer staged = t.device == Device::cpu ? Buffer() : host_like(t);
  const Tensor& host = staged.view() ? staged.view() : t;
  source.read_checked(n.name, n.begin, host);
  const int64_t bad = count_nonfinite(host);
  SLUICE_CHECK(bad == 0, source.path(), ": tensor '", n.name, "': ", bad, " of ", t.numel(),
               " elements are not finite");
  if (staged.view()) copy(host, t);
}

}  // namespace

std::string file_of(const CheckpointRef& ref, Part part) {
  return ref.folder + "/" + file_name(part);
}

std::vector<std::string> find_problems(const CheckpointRef& ref, Verify verify) {
  return find_problems(ref, verify, 0, 1);
}

std::vector<std::string> find_problems(const CheckpointRef& ref, Verify verify, int share,
                                       int shares) {
  std::vector<std::string> problems;
  Manifest manifest;
  try {
    manifest = read_manifest(ref);
    if (share == 0 && manifest.ranks > 1)
      for (const Part part : {Part::weights, Part::optimizer}) pieces_of(manifest, part, &problems);
    for (std::string& p : problems) p = ref.folder + ": " + p;
  } catch (const Error& e) {
    return {e.what()};
  }
  int number = 0;
  for (const auto& [name, file] : manifest.files) {
    if (number++ % shares != share) continue;
    try {
      const auto found = problems_of(ref.folder + "/" + name, file, verify);
      problems.insert(problems.end(), found.begin(), found.end());
    } catch (const Error& e) {  // missing, not readable
      problems.push_back(e.what());
    }
  }
  return problems;
}

// The same on all ranks, which share the reading.
static std::vector<std::string> find_problems(const CheckpointRef& ref, Verify verify,
                                              Comm* ranks) {
  if (!ranks) return find_problems(ref, verify);
  json mine;
  on_threads(*ranks, [&] { mine = find_problems(ref, verify, ranks->rank(), ranks->size()); });
  std::vector<std::string> problems;
  for (const std::string& text : gather_texts(*ranks, mine.dump()))
    for (const std::string p : json::parse(text))
      if (std::find(problems.begin(), problems.end(), p) == problems.end()) problems.push_back(p);
  return problems;
}

// What rank 0 sees, which may be a moment ahead of what a network's file system shows others.
static std::vector<CheckpointRef> list_checkpoints(const std::string& run_dir, Comm* ranks) {
  if (!ranks) return list_checkpoints(run_dir);
  json list = json::array();
  on_all_ranks(*ranks, [&] {
    if (ranks->rank() > 0) return;
    for (const CheckpointRef& ref : list_checkpoints(run_dir))
      list.push_back({ref.folder, ref.step});
  });
  std::vector<CheckpointRef> refs;
  for (const json& r : json::parse(broadcast_text(*ranks, list.dump())))
    refs.push_back({r[0], r[1]});
  return refs;
}

std::optional<CheckpointRef> find_newest_valid(const std::string& run_dir,
                                               std::vector<std::string>* problems, Verify verify,
                                               Comm* ranks) {
  for (const CheckpointRef& ref : list_checkpoints(run_dir, ranks)) {
    const std::vector<std::string> found = find_problems(ref, verify, ranks);
    if (found.empty()) return ref;
    if (problems) problems->insert(problems->end(), found.begin(), found.end());
  }
  return std::nullopt;
}

CheckpointRef find_checkpoint(const std::string& path, std::vector<std::string>* problems,
                              Comm* ranks) {
  const NamedPath named = name_path(path);
  std::vector<std::string> found;
  std::optional<CheckpointRef> ref = named.one;
  if (ref)
    found = find_problems(*ref, Verify::contents, ranks);
  else
    ref = find_newest_valid(named.run_dir, &found, Verify::contents, ranks);
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

void load_tensors(const CheckpointRef& ref, Part part, std::span<const NamedTensor> into) {
  const CheckpointTensors source(ref, part);
  check_names(source, into);
  for (const NamedTensor& n : into) load(source, n);
}

}  // namespace sluice
