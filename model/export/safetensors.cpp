// model/export/safetensors.cpp -- files of tensors: the writer's bookkeeping, the reader's checks.
#include "model/export/safetensors.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "model/export/safetensors_header.h"

namespace sluice {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

namespace {

// Calls io(pointer, element, count) for every dense piece of `t`; element counts from 0.
template <class Io>
void for_pieces(const Tensor& t, const Io& io) {
  if (t.numel() == 0) return;
  char* const data = static_cast<char*>(t.data);
  if (t.dense()) return io(data, 0, t.numel());
  const int64_t per_row = t.numel() / t.dim(0), row_bytes = t.stride[0] * size_of(t.dtype);
  for (int64_t n = 0; n < t.dim(0); ++n) io(data + n * row_bytes, n * per_row, per_row);
}

void check_host(const Tensor& t, const std::string& where) {
  SLUICE_CHECK(t && t.device == Device::cpu, where, ": got ", to_string(t),
               ", expected a tensor on cpu");
  // Only the first dimension may have gaps.
  int64_t step = 1;
  for (int i = t.rank - 1; i > 0; --i) {
    SLUICE_CHECK(t.shape[size_t(i)] <= 1 || t.stride[size_t(i)] == step, where, ": dimension ", i,
                 " of ", to_string(t), " has gaps");
    step *= t.shape[size_t(i)];
  }
}

bool same_shape(const SafetensorsEntry& e, const Tensor& t) {
  const std::vector<int64_t> scalar = {1};
  const auto& shape = e.shape.empty() ? scalar : e.shape;
  return e.dtype == t.dtype && int(shape.size()) == t.rank &&
         std::equal(shape.begin(), shape.end(), t.shape.begin());
}

void check_slice(const SafetensorsEntry& e, int64_t first, const Tensor& t,
                 const std::string& where) {
  check_host(t, where);
  SLUICE_CHECK(e.dtype == t.dtype, where, ": the file has ", to_string(e), ", the slice is ",
               to_string(t));
  SLUICE_CHECK(first >= 0 && first <= e.numel() - t.numel(), where, ": elements ", first, " to ",
               first + t.numel(), " of ", to_string(e));
}

std::string partial(const std::string& path) {
  return path + ".partial";
}

}  // namespace

int64_t SafetensorsEntry::numel() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

std::string to_string(const SafetensorsEntry& e) {
  std::string text = cat(name(e.dtype), " [");
  for (size_t i = 0; i < e.shape.size(); ++i) text += cat(i ? ", " : "", e.shape[i]);
  return text + "]";
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), file_(PosixFile::create(partial(path))) {
  try {
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return size_of(a.dtype) > size_of(b.dtype);
    });
    int64_t position = 0;
    for (SafetensorsEntry& e : entries) {
      check_tensor_name(e.name, path);
      int64_t bytes = size_of(e.dtype);
      for (const int64_t d : e.shape)
        SLUICE_CHECK(d >= 0 && !__builtin_mul_overflow(bytes, d, &bytes), path, ": tensor '",
                     e.name, "' is ", to_string(e));
      e.begin = position;
      e.end = position += bytes;
      SLUICE_CHECK(tensors_.try_emplace(e.name, Progress{.entry = e, .written = {}}).second, path,
                   ": tensor '", e.name, "' is declared twice");
    }
    const std::string header = format_header({std::move(entries), metadata}, path);
    const uint64_t length = header.size();
    file_.write(0, &length, 8);
    file_.write(8, header.data(), int64_t(length));
    data_start_ = 8 + int64_t(length);
  } catch (...) {
    ::unlink(partial(path_).c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (!finished_) ::unlink(partial(path_).c_str());
}

SafetensorsWriter::Progress& SafetensorsWriter::find(const std::string& name) {
  const auto it = tensors_.find(name);
  SLUICE_CHECK(it != tensors_.end(), path_, ": tensor '", name, "' was not declared");
  return it->second;
}

void SafetensorsWriter::mark_written(Progress& p, int64_t begin, int64_t end) {
  if (begin == end) return;
  auto& done = p.written;
  auto next = done.lower_bound(begin);
  const bool clash_after = next != done.end() && next->first < end;
  const bool clash_before = next != done.begin() && std::prev(next)->second > begin;
  SLUICE_CHECK(!clash_after && !clash_before, path_, ": tensor '", p.entry.name, "': elements ",
               begin, " to ", end, " are in part written already");
  if (next != done.end() && next->first == end) {
    end = next->second;
    next = done.erase(next);
  }
  if (next != done.begin() && std::prev(next)->second == begin)
    std::prev(next)->second = end;
  else
    done.emplace(begin, end);
}

void SafetensorsWriter::write(const std::string& name, const Tensor& t) {
  const SafetensorsEntry& e = find(name).entry;
  SLUICE_CHECK(same_shape(e, t), path_, ": tensor '", name, "': declared as ", to_string(e),
               ", got ", to_string(t));
  write_slice(name, 0, t);
}

void SafetensorsWriter::write_slice(const std::string& name, int64_t first, const Tensor& t) {
  SLUICE_CHECK(!finished_, path_, ": tensor '", name, "' after finish()");
  Progress& p = find(name);
  check_slice(p.entry, first, t, cat(path_, ": tensor '", name, "'"));
  mark_written(p, first, first + t.numel());
  const int64_t size = size_of(t.dtype), start = data_start_ + p.entry.begin + first * size;
  for_pieces(t, [&](const char* from, int64_t element, int64_t count) {
    file_.write(start + element * size, from, count * size);
  });
}

void SafetensorsWriter::finish() {
  SLUICE_CHECK(!finished_, path_, ": finish() twice");
  for (const auto& item : tensors_) {
    const Progress& p = item.second;
    int64_t done = 0;
    for (const auto& range : p.written) done += range.second - range.first;
    SLUICE_CHECK(done == p.entry.numel(), path_, ": tensor '", item.first, "': ", done, " of ",
                 p.entry.numel(), " elements were written");
  }
  file_.sync();
  file_.close();
  rename_path(partial(path_), path_);
  finished_ = true;
  sync_folder(parent_of(path_));
}

SafetensorsReader::SafetensorsReader(const std::string& path) : file_(PosixFile::open(path)) {
  const int64_t file_bytes = file_.size();
  SLUICE_CHECK(file_bytes >= 8, path, ": ", file_bytes,
               " bytes, expected 8 at least for the header's length");
  uint64_t length = 0;
  file_.read(0, &length, 8);
  SLUICE_CHECK(length <= uint64_t(kMaxHeaderBytes), path, ": header of ", length,
               " bytes, the format allows ", kMaxHeaderBytes);
  SLUICE_CHECK(int64_t(length) <= file_bytes - 8, path, ": header of ", length,
               " bytes, the file has ", file_bytes - 8, " after its length");
  std::string json(length, '\0');
  file_.read(8, json.data(), int64_t(length));

  data_start_ = 8 + int64_t(length);
  SafetensorsHeader header = parse_header(json, file_bytes - data_start_, path);
  entries_ = std::move(header.entries);
  metadata_ = std::move(header.metadata);
  for (size_t i = 0; i < entries_.size(); ++i) index_[entries_[i].name] = i;
}

const SafetensorsEntry* SafetensorsReader::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

const SafetensorsEntry& TensorSource::at(const std::string& name) const {
  const SafetensorsEntry* e = find(name);
  SLUICE_CHECK(e, path(), ": no tensor '", name, "' among ", entries().size());
  return *e;
}

void TensorSource::read(const std::string& name, const Tensor& out) const {
  const SafetensorsEntry& e = at(name);
  SLUICE_CHECK(same_shape(e, out), path(), ": tensor '", name, "': expected ", to_string(out),
               ", the file has ", to_string(e));
  read_slice(name, 0, out);
}

void SafetensorsReader::read_slice(const std::string& name, int64_t first,
                                   const Tensor& out) const {
  const SafetensorsEntry& e = at(name);
  check_slice(e, first, out, cat(path(), ": tensor '", name, "'"));
  const int64_t size = size_of(e.dtype), start = data_start_ + e.begin + first * size;
  for_pieces(out, [&](char* to, int64_t element, int64_t count) {
    file_.read(start + element * size, to, count * size);
  });
}

}  // namespace sluice
