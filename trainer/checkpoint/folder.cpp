// trainer/checkpoint/folder.cpp -- the folders of checkpoints.
#include "trainer/checkpoint/folder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "model/export/posix_file.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

void check(const std::error_code& error, const std::string& path, const char* what) {
  SLUICE_CHECK(!error, path, ": ", what, ": ", error.message(), " (errno ", error.value(), ")");
}

}  // namespace

std::string checkpoints_folder(const std::string& run_dir) {
  return run_dir + "/checkpoints";
}

std::string step_name(int64_t step) {
  return fmt::format("step-{:08}", step);
}

std::optional<int64_t> step_of(const std::string& name) {
  int64_t step = -1;
  if (name.rfind("step-", 0) != 0) return std::nullopt;
  std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (step < 0 || name != step_name(step)) return std::nullopt;
  return step;
}

bool exists(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT) fail_errno(__FILE__, __LINE__, path, "stat");
  return false;
}

void make_folder(const std::string& path) {
  SLUICE_CHECK(!path.empty(), "a folder without a name");
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return;
  const std::string parent = parent_of(path);
  if (parent != path) make_folder(parent);
  if (::mkdir(path.c_str(), 0777) != 0) {
    if (errno == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return;
    fail_errno(__FILE__, __LINE__, path, "make folder");
  }
  sync_folder(parent);
}

void remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  check(error, path, "remove");
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  if (!exists(folder)) return names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  check(error, folder, "list");
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<CheckpointRef> list_checkpoints(const std::string& run_dir) {
  const std::string root = checkpoints_folder(run_dir);
  std::vector<CheckpointRef> refs;
  for (const std::string& name : names_in(root))
    if (const auto step = step_of(name)) refs.push_back({root + "/" + name, *step});
  std::sort(refs.begin(), refs.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return refs;
}

}  // namespace sluice
