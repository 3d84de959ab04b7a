// data/text/input_files.cpp -- folders, patterns, and what identifies a file.
#include "data/text/input_files.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "data/text/byte_source.h"
#include "kernels/base/check.h"

namespace sluice {

namespace fs = std::filesystem;

static std::string_view stem_of(std::string_view path) {
  std::string_view stem;
  compression_of(path, &stem);
  return stem;
}
static TextFormat format_of(std::string_view path) {
  const std::string_view stem = stem_of(path);
  return stem.ends_with(".jsonl") || stem.ends_with(".json") ? TextFormat::json_lines
                                                             : TextFormat::text;
}

static std::vector<std::string> text_files_below(const std::string& folder) {
  std::vector<std::string> found;
  try {
    for (const auto& entry : fs::recursive_directory_iterator(
             folder, fs::directory_options::follow_directory_symlink)) {
      const std::string path = entry.path().string();
      const bool named =
          stem_of(path).ends_with(".txt") || format_of(path) == TextFormat::json_lines;
      if (named && !entry.is_directory()) found.push_back(path);
    }
  } catch (const fs::filesystem_error& e) {
    throw Error(cat(e.path1().string(), ": ", e.code().message()));
  }
  if (found.empty())
    throw Error(cat(folder,
                    ": expected .txt, .jsonl or .json files (also .gz, .xz, .zst) in this "
                    "folder, found none"));
  std::sort(found.begin(), found.end());
  return found;
}

static std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  const int status = glob(pattern.c_str(), GLOB_ERR, nullptr, &found);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  if (status != 0) throw Error(cat(pattern, ": this pattern matches no file"));
  return paths;
}

static std::vector<std::string> expand(const std::string& path) {
  std::error_code none;
  if (path == "-") return {path};
  if (fs::is_directory(path, none)) return text_files_below(path);
  if (fs::exists(path, none) || path.find_first_of("*?[") == std::string::npos) return {path};
  std::vector<std::string> files;
  for (const std::string& match : matches_of(path)) {
    if (!fs::is_directory(match, none)) {
      files.push_back(match);
      continue;
    }
    for (std::string& file : text_files_below(match)) files.push_back(std::move(file));
  }
  return files;
}

// What a pipe gives can be read once only, so it is not even opened here.
static InputFile identify(const std::string& path, const struct stat& st) {
  InputFile file{.path = path, .format = format_of(path), .stream = !S_ISREG(st.st_mode)};
  if (file.stream) return file;
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error(cat(path, ": ", std::strerror(errno)));
  std::string head(1 << 16, '\0');
  const ssize_t n = read(descriptor, head.data(), head.size());
  const int why = errno;
  close(descriptor);
  if (n < 0) throw Error(cat(path, ": byte 0: ", std::strerror(why)));
  file.bytes = int64_t(st.st_size);
  file.modified_ns = int64_t(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec;
  file.head_crc = uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(head.data()), size_t(n)));
  return file;
}

std::vector<InputFile> find_inputs(const std::vector<std::string>& paths, TextFormat stdin_format) {
  std::vector<InputFile> inputs;
  std::set<std::pair<dev_t, ino_t>> seen;
  for (const std::string& given : paths)
    for (const std::string& path : expand(given)) {
      const bool standard = path == "-";
      struct stat st {};
      if ((standard ? fstat(STDIN_FILENO, &st) : stat(path.c_str(), &st)) != 0)
        throw Error(cat(standard ? "standard input" : path, ": ", std::strerror(errno)));
      if (!seen.insert({st.st_dev, st.st_ino}).second)
        throw Error(cat(path, ": this input is named twice"));
      inputs.push_back(standard ? InputFile{.path = path, .format = stdin_format, .stream = true}
                                : identify(path, st));
    }
  return inputs;
}

}  // namespace sluice
