// trainer/checkpoint/save.cpp -- write aside, fsync, rename, fsync; only then remove old ones.
//
// The order is the guarantee. Until the rename there is only a .tmp- folder, which nobody loads;
// when it happens, all files are on the disk already, the manifest last.
#include <zlib.h>

#include <utility>

#include "model/export/posix_file.h"
#include "model/export/safetensors.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/checkpoint/save.h"

namespace sluice {
namespace {

constexpr const char* kTmp = ".tmp-";
constexpr const char* kReplaced = ".replaced";

bool ends_with(const std::string& s, const std::string& end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

void write_text(const std::string& path, const std::string& text) {
  PosixFile file = PosixFile::create(path);
  file.write(0, text.data(), int64_t(text.size()));
  file.sync();
  file.close();
}

}  // namespace

// The checksums come from memory, not from the file: they cover the way to the disk as well. A
// state with NaN is no state to resume from: the checkpoint before it is the better one.
ManifestFile write_tensors(const std::string& path, std::span<const NamedTensor> tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const NamedTensor& n : tensors) {
    const auto& [name, t, whole, begin] = n;
    SLUICE_CHECK(t && t.device == Device::cpu && t.dense(), path, ": tensor '", name, "' is ",
                 to_string(t), ", expected a dense tensor on cpu");
    entries.push_back({.name = name,
                       .dtype = t.dtype,
                       .shape = {t.shape.begin(), t.shape.begin() + t.rank},
                       .begin = 0,
                       .end = 0});
  }
  SafetensorsWriter writer(path, entries);
  ManifestFile file;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, t, whole, begin] = tensors[i];
    const int64_t bad = count_nonfinite(t);
    SLUICE_CHECK(bad == 0, path, ": tensor '", name, "': ", bad, " of ", t.numel(),
                 " elements are not finite; such a state is not saved");
    file.tensors[name] = {
        .type = to_string(entries[i]), .crc32 = crc32_of(t.data, t.bytes()), .begin = begin};
    writer.write(name, t);
  }
  writer.finish();

  // The file's checksum: that of the header, continued by those of the tensors in file order.
  const SafetensorsReader reader(path);
  file.bytes = PosixFile::open(path).size();
  const int64_t data_bytes = reader.entries().empty() ? 0 : reader.entries().back().end;
  file.crc32 = crc32_of_file(path, file.bytes - data_bytes);
  for (const SafetensorsEntry& e : reader.entries())
    file.crc32 = uint32_t(::crc32_combine(file.crc32, file.tensors[e.name].crc32, e.end - e.begin));
  return file;
}

void seal_save(const std::string& folder, Manifest manifest) {
  const auto path = [&](const char* name) { return folder + "/" + name; };
  const std::string& yaml = manifest.meta.config_yaml;
  write_text(path(kConfigName), yaml);
  manifest.files[kConfigName] = {.bytes = int64_t(yaml.size()),
                                 .crc32 = crc32_of(yaml.data(), int64_t(yaml.size())),
                                 .tensors = {}};
  sync_folder(folder);  // the files before the manifest that promises them
  write_text(path(kManifestName), format_manifest(manifest, path(kManifestName)));
  sync_folder(folder);
}

namespace {

// Swaps or moves `tmp` to `to`.
void publish(const std::string& tmp, const std::string& to) {
  if (!exists(to)) {
    rename_path(tmp, to);
  } else if (!exchange_paths(tmp, to)) {
    // A kill between the last two lines leaves no step-N but a step-N.replaced, which
    // remove_leftovers() renames back.
    remove_tree(to + kReplaced);
    rename_path(to, to + kReplaced);
    rename_path(tmp, to);
  }
  sync_folder(parent_of(to));
  remove_tree(tmp);  // what was replaced
  remove_tree(to + kReplaced);
}

// Out of the way in one step: a kill leaves a .tmp- folder and no half checkpoint.
void remove_checkpoint(const CheckpointRef& ref) {
  const std::string aside = parent_of(ref.folder) + "/" + kTmp + "remove-" + step_name(ref.step);
  remove_tree(aside);
  rename_path(ref.folder, aside);
  remove_tree(aside);
}

// Keeps the newest `keep_last` intact ones, the one just saved, every keep_every_steps-th, and
// broken ones newer than all these, which somebody should look at. Removes the oldest first, so
// that a kill leaves no old one stranded behind a gap; the next save removes the rest.
std::vector<std::string> prune(const std::string& run_dir, int64_t saved_step,
                               const Retention& retention) {
  std::vector<CheckpointRef> surplus;  // newest first
  int64_t good = 0;
  for (const CheckpointRef& ref : list_checkpoints(run_dir)) {
    const bool forever = retention.keep_every_steps && ref.step % *retention.keep_every_steps == 0;
    if (good < retention.keep_last)
      good += find_problems(ref, Verify::sizes).empty();
    else if (ref.step != saved_step && !forever)
      surplus.push_back(ref);
  }
  std::vector<std::string> problems;
  for (size_t i = surplus.size(); i-- > 0;) {
    try {
      remove_checkpoint(surplus[i]);
    } catch (const Error& e) {
      problems.push_back(e.what());
    }
  }
  return problems;
}

}  // namespace

void check_save(const CheckpointMeta& meta, const Retention& retention) {
  SLUICE_CHECK(meta.step >= 0, "step is ", meta.step);
  SLUICE_CHECK(retention.keep_last >= 1, "keep_last is ", retention.keep_last);
  SLUICE_CHECK(!retention.keep_every_steps || *retention.keep_every_steps >= 1,
               "keep_every_steps is ", *retention.keep_every_steps);
}

std::string save_folder(const std::string& run_dir, int64_t step) {
  return checkpoints_folder(run_dir) + "/" + kTmp + step_name(step);
}

std::string open_save(const std::string& run_dir, int64_t step) {
  const std::string tmp = save_folder(run_dir, step);
  make_folder(checkpoints_folder(run_dir));
  remove_tree(tmp);
  try {
    make_folder(tmp);
  } catch (...) {
    drop_save(tmp);
    throw;
  }
  return tmp;
}

void drop_save(const std::string& folder) {
  try {
    remove_tree(folder);
  } catch (const Error&) {  // the first failure is the one to report
  }
}

SaveResult publish_save(const std::string& run_dir, const std::string& folder, int64_t step,
                        const Retention& retention) {
  const CheckpointRef saved{checkpoints_folder(run_dir) + "/" + step_name(step), step};
  publish(folder, saved.folder);
  return {saved, prune(run_dir, step, retention)};
}

SaveResult save_checkpoint(const std::string& run_dir, const CheckpointMeta& meta,
                           std::span<const NamedTensor> weights,
                           std::span<const NamedTensor> optimizer, const Retention& retention) {
  check_save(meta, retention);
  const std::string folder = open_save(run_dir, meta.step);
  try {
    Manifest manifest{.meta = meta, .files = {}};
    for (const Part part : {Part::weights, Part::optimizer})
      manifest.files[file_name(part)] = write_tensors(folder + "/" + file_name(part),
                                                      part == Part::weights ? weights : optimizer);
    seal_save(folder, std::move(manifest));
    return publish_save(run_dir, folder, meta.step, retention);
  } catch (...) {
    drop_save(folder);
    throw;
  }
}

void remove_leftovers(const RunLock& lock) {
  const std::string root = checkpoints_folder(lock.run_dir());
  for (const std::string& name : names_in(root)) {
    const std::string path = root + "/" + name;
    if (name.rfind(kTmp, 0) == 0) {
      remove_tree(path);
    } else if (ends_with(name, kReplaced)) {
      const std::string original = path.substr(0, path.size() - std::string(kReplaced).size());
      if (exists(original))
        remove_tree(path);
      else
        rename_path(path, original);
    }
  }
}

}  // namespace sluice
