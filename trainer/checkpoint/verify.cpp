// trainer/checkpoint/verify.cpp -- size, header, checksums, and no NaN.
#include "trainer/checkpoint/verify.h"

#include <zlib.h>

#include <algorithm>
#include <set>

#include "kernels/tensor/buffer.h"
#include "model/export/safetensors.h"

namespace sluice {
namespace {

constexpr int64_t kBlock = 1 << 20;  // elements read at a time

// Names, dtypes and shapes of the header against those that were saved.
std::string header_problem(const SafetensorsReader& reader, const ManifestFile& file) {
  std::vector<std::string> missing, extra;
  std::string other;
  for (const auto& [name, saved] : file.tensors) {
    const SafetensorsEntry* e = reader.find(name);
    if (!e)
      missing.push_back(name);
    else if (to_string(*e) != saved.type)
      other += cat("; tensor '", name, "': expected ", saved.type, ", got ", to_string(*e));
  }
  for (const SafetensorsEntry& e : reader.entries())
    if (!file.tensors.contains(e.name)) extra.push_back(e.name);
  const std::string all =
      describe("tensors missing", missing) + describe("tensors that were not saved", extra) + other;
  return all.empty() ? all : reader.path() + ": " + all.substr(2);
}

struct Scan {
  uint32_t crc32 = 0;
  int64_t nonfinite = 0;
};

Scan scan(const SafetensorsReader& reader, const SafetensorsEntry& e, const Buffer& block) {
  Scan s;
  for (int64_t at = 0; at < e.numel(); at += kBlock) {
    const Tensor part =
        make_tensor(block.view().data, e.dtype, Device::cpu, {std::min(kBlock, e.numel() - at)});
    reader.read_slice(e.name, at, part);
    s.crc32 = extend_crc32(s.crc32, part.data, part.bytes());
    s.nonfinite += count_nonfinite(part);
  }
  return s;
}

// One pass over the data finds which tensors changed, and the file's checksum as well: that of the
// header, continued by those of the tensors in file order.
std::vector<std::string> data_problems(const SafetensorsReader& reader, const ManifestFile& file) {
  std::vector<std::string> problems, changed;
  const int64_t data_bytes = reader.entries().empty() ? 0 : reader.entries().back().end;
  uint32_t crc = crc32_of_file(reader.path(), file.bytes - data_bytes);
  const Buffer block(DType::f64, {kBlock});  // of the widest type
  for (const SafetensorsEntry& e : reader.entries()) {
    const Scan got = scan(reader, e, block);
    crc = uint32_t(::crc32_combine(crc, got.crc32, e.end - e.begin));
    if (got.crc32 != file.tensors.at(e.name).crc32) changed.push_back(e.name);
    if (got.nonfinite > 0)
      problems.push_back(cat(reader.path(), ": tensor '", e.name, "': ", got.nonfinite, " of ",
                             e.numel(), " elements are not finite"));
  }
  if (crc != file.crc32)
    problems.push_back(
        cat(reader.path(), ": expected crc32 ", hex(file.crc32), ", got ", hex(crc),
            changed.empty() ? "; the header changed" : describe("tensors changed", changed)));
  return problems;
}

}  // namespace

std::string describe(const char* what, const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  if (names.empty()) return "";
  std::string text = cat("; ", names.size(), " ", what, ":");
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) text += " '" + names[i] + "'";
  return names.size() > kShown ? text + " ..." : text;
}

std::vector<std::string> problems_of(const std::string& path, const ManifestFile& file,
                                     Verify verify) {
  const int64_t bytes = PosixFile::open(path).size();
  std::vector<std::string> problems;
  if (bytes != file.bytes)
    problems.push_back(cat(path, ": expected ", file.bytes, " bytes, got ", bytes));
  if (!path.ends_with(".safetensors")) {
    if (!problems.empty() || verify == Verify::sizes) return problems;
    const uint32_t crc = crc32_of_file(path, bytes);
    if (crc != file.crc32)
      problems.push_back(cat(path, ": expected crc32 ", hex(file.crc32), ", got ", hex(crc)));
    return problems;
  }
  try {
    const SafetensorsReader reader(path);
    const std::string header = header_problem(reader, file);
    if (!header.empty()) problems.push_back(header);
    if (problems.empty() && verify == Verify::contents) return data_problems(reader, file);
  } catch (const Error& e) {  // a header that is no header; of a cut file that is no news
    if (problems.empty()) problems.emplace_back(e.what());
  }
  return problems;
}

}  // namespace sluice
