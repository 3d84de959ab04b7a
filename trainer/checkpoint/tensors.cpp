// trainer/checkpoint/tensors.cpp -- pieces put together by the manifest.
#include "trainer/checkpoint/tensors.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace sluice {
namespace {

constexpr size_t kOpenFiles = 64;  // at a time

// The reverse of to_string(SafetensorsEntry).
SafetensorsEntry parse_type(const std::string& name, const std::string& type) {
  SafetensorsEntry e{.name = name, .shape = {}};
  const size_t bracket = type.find(" [");
  bool known = false;
  for (const DType d : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8})
    if (type.substr(0, bracket) == sluice::name(d)) e.dtype = d, known = true;
  SLUICE_CHECK(known && bracket != std::string::npos, "tensor '", name, "' is '", type, "'");
  int64_t numel = 1;
  for (size_t at = bracket + 2; at < type.size() && type[at] != ']'; ++at) {
    if (type[at] == ',' || type[at] == ' ') continue;
    int64_t d = -1;
    const auto read = std::from_chars(&type[at], type.data() + type.size(), d);
    SLUICE_CHECK(d >= 0 && (d == 0 || numel <= std::numeric_limits<int64_t>::max() / 8 / d),
                 "tensor '", name, "' is '", type, "'");
    numel *= d;
    e.shape.push_back(d);
    at = size_t(read.ptr - type.data()) - 1;
  }
  SLUICE_CHECK(to_string(e) == type, "tensor '", name, "' is '", type, "', read as ", to_string(e));
  return e;
}

// The whole tensors of a part, in the order that they are shown in.
std::vector<SafetensorsEntry> whole_tensors(const Manifest& m, Part part) {
  std::vector<SafetensorsEntry> list;
  if (m.ranks == 1)
    for (const auto& [name, t] : m.files.at(file_name(part)).tensors)
      list.push_back(parse_type(name, t.type));
  else
    for (const auto& [name, type] : m.whole.at(part)) list.push_back(parse_type(name, type));
  return list;
}

// Holes, overlaps, and what is beyond the end.
void check_cover(const SafetensorsEntry& e, const std::vector<SavedPiece>& pieces,
                 std::vector<std::string>* problems) {
  const std::string what = cat("tensor '", e.name, "', ", to_string(e), ": elements ");
  int64_t at = 0;
  for (const SavedPiece& p : pieces) {
    if (p.begin > at) problems->push_back(cat(what, at, " to ", p.begin, " are in no file"));
    if (p.begin < at)
      problems->push_back(cat(p.file, ": ", what, p.begin, " to ", std::min(at, p.end),
                              " are in another file, too"));
    at = std::max(at, p.end);
  }
  if (at < e.numel()) problems->push_back(cat(what, at, " to ", e.numel(), " are in no file"));
  if (at > e.numel())
    problems->push_back(
        cat(pieces.back().file, ": ", what, "up to ", at, ", expected ", e.numel()));
}

}  // namespace

SafetensorsEntry entry_of(const NamedTensor& n) {
  SafetensorsEntry e{.name = n.name, .dtype = n.t.dtype, .shape = n.whole};
  if (n.whole.empty()) e.shape = {n.t.shape.begin(), n.t.shape.begin() + n.t.rank};
  return e;
}

SavedPieces pieces_of(const Manifest& m, Part part, std::vector<std::string>* problems) {
  const std::vector<SafetensorsEntry> whole = whole_tensors(m, part);
  std::map<std::string, const SafetensorsEntry*> known;
  for (const SafetensorsEntry& e : whole)
    if (!known.emplace(e.name, &e).second)
      problems->push_back(cat("tensor '", e.name, "' is there twice"));
  SavedPieces all;
  for (const auto& [file, f] : m.files) {
    if (!is_of(file, part)) continue;
    for (const auto& [name, t] : f.tensors) {
      const auto it = known.find(name);
      const SafetensorsEntry piece = parse_type(name, t.type);
      if (it == known.end())
        problems->push_back(cat(file, ": tensor '", name, "' is none of the model's"));
      else if (it->second->dtype != piece.dtype)
        problems->push_back(cat(file, ": tensor '", name, "': expected a piece of ",
                                to_string(*it->second), ", got ", t.type));
      else if (t.begin < 0)
        problems->push_back(cat(file, ": tensor '", name, "' begins at element ", t.begin));
      else
        all[name].push_back({file, t.begin, t.begin + piece.numel(), t.crc32});
    }
  }
  for (const SafetensorsEntry& e : whole) {
    std::vector<SavedPiece>& list = all[e.name];
    std::stable_sort(list.begin(), list.end(),
                     [](const SavedPiece& a, const SavedPiece& b) { return a.begin < b.begin; });
    check_cover(e, list, problems);
  }
  return all;
}

CheckpointTensors::CheckpointTensors(const CheckpointRef& ref, Part part) : folder_(ref.folder) {
  const Manifest m = read_manifest(ref);
  path_ = m.ranks == 1 ? file_of(ref, part) : cat(ref.folder, " (", m.ranks, " ranks)");
  std::vector<std::string> problems;
  pieces_ = pieces_of(m, part, &problems);
  SLUICE_CHECK(problems.empty(), ref.folder, ": ", problems[0],
               problems.size() > 1 ? cat(", and ", problems.size() - 1, " more problems") : "");
  // One file's tensors keep its order; the manifest's is alphabetical.
  entries_ = m.ranks == 1 ? open(file_name(part))->entries() : whole_tensors(m, part);
  for (size_t i = 0; i < entries_.size(); ++i) index_[entries_[i].name] = i;
}

std::shared_ptr<const SafetensorsReader> CheckpointTensors::open(const std::string& file) const {
  const std::lock_guard lock(mutex_);
  const auto it = open_.find(file);
  if (it != open_.end()) return it->second;
  if (open_.size() >= kOpenFiles) open_.clear();
  return open_[file] = std::make_shared<const SafetensorsReader>(folder_ + "/" + file);
}

const SafetensorsEntry* CheckpointTensors::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

void CheckpointTensors::read_slice(const std::string& name, int64_t first,
                                   const Tensor& out) const {
  read(name, first, out, false);
}

void CheckpointTensors::read_checked(const std::string& name, int64_t first,
                                     const Tensor& out) const {
  read(name, first, out, true);
}

void CheckpointTensors::read(const std::string& name, int64_t first, const Tensor& out,
                             bool checked) const {
  const SafetensorsEntry& e = at(name);
  const int64_t last = first + out.numel();
  SLUICE_CHECK(out.device == Device::cpu && out.dense() && out.dtype == e.dtype && first >= 0 &&
                   last <= e.numel(),
               path_, ": tensor '", name, "', ", to_string(e), ": elements ", first, " to ", last,
               " into ", to_string(out));
  const auto pieces = pieces_.find(name);
  SLUICE_CHECK(pieces != pieces_.end(), path_, ": tensor '", name, "' is not in the manifest");
  const Tensor flat = out.reshape({out.numel()});
  for (const SavedPiece& p : pieces->second) {
    const int64_t from = std::max(first, p.begin), to = std::min(last, p.end);
    if (from >= to) continue;
    const Tensor part = flat.rows(from - first, to - from);
    const auto file = open(p.file);
    file->read_slice(name, from - p.begin, part);
    if (!checked || from != p.begin || to != p.end) continue;
    const uint32_t got = crc32_of(part.data, part.bytes());
    SLUICE_CHECK(got == p.crc32, file->path(), ": tensor '", name, "': expected crc32 ",
                 hex(p.crc32), ", got ", hex(got));
  }
}

std::optional<uint32_t> CheckpointTensors::crc32(const std::string& name) const {
  const auto pieces = pieces_.find(name);
  if (pieces == pieces_.end()) return std::nullopt;
  uint32_t crc = 0;
  for (const SavedPiece& p : pieces->second)
    crc = uint32_t(::crc32_combine(crc, p.crc32, (p.end - p.begin) * size_of(at(name).dtype)));
  return crc;
}

}  // namespace sluice
