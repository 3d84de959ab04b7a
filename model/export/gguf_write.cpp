// model/export/gguf_write.cpp -- the header in memory, the data as they come.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "model/export/gguf.h"

namespace sluice {
namespace {

using Type = GgufValue::Type;

constexpr int64_t kAlignment = 32;     // the format's, where no key says otherwise
constexpr size_t kMaxTensorName = 63;  // of llama.cpp, without its final NUL

int64_t aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

class Header {
 public:
  template <class T>
  void number(T x) {
    bytes_.append(reinterpret_cast<const char*>(&x), sizeof x);
  }
  void text(const std::string& s) {
    number(uint64_t(s.size()));
    bytes_ += s;
  }
  void value(const GgufValue& v) {
    if (v.is_list) {
      number(uint32_t(Type::list));
      number(uint32_t(v.type));
      number(uint64_t(v.size()));
    } else {
      number(uint32_t(v.type));
    }
    std::visit(
        [&](const auto& values) {
          for (const auto& x : values) element(v.type, x);
        },
        v.values);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void element(Type, const std::string& x) { text(x); }
  template <class N>
  void element(Type type, const N& x) {
    switch (type) {
      case Type::u32:
        SLUICE_CHECK(x >= 0 && double(x) <= std::numeric_limits<uint32_t>::max(), x, " as u32");
        return number(uint32_t(x));
      case Type::i32: return number(int32_t(x));
      case Type::f32: return number(float(x));
      case Type::boolean: return number(uint8_t(x));
      default: SLUICE_CHECK(false, "keys of type ", uint32_t(type), " are not written here");
    }
  }
  std::string bytes_;
};

std::string partial(const std::string& path) {
  return path + ".partial";
}

void check(const GgufTensor& t, const std::string& path) {
  SLUICE_CHECK(!t.name.empty() && t.name.size() <= kMaxTensorName, path, ": tensor name '", t.name,
               "', expected 1 to ", kMaxTensorName, " bytes");
  SLUICE_CHECK(t.shape.size() >= 1 && t.shape.size() <= 4, path, ": ", t.name, ": rank ",
               t.shape.size(), ", expected 1 to 4");
  SLUICE_CHECK(can_encode(t.type) && t.shape.back() % block_of(t.type).elements == 0, path, ": ",
               t.name, ": ", to_string(t), ": expected rows of whole blocks of ",
               block_of(t.type).elements);
}

}  // namespace

GgufWriter::GgufWriter(const std::string& path, const GgufKeys& keys,
                       std::vector<GgufTensor> tensors)
    : path_(path), file_(PosixFile::create(partial(path))) {
  Header h;
  h.number(uint32_t(0x46554747));  // "GGUF"
  h.number(uint32_t(3));
  h.number(uint64_t(tensors.size()));
  h.number(uint64_t(keys.size()));
  std::set<std::string> names;
  for (const auto& [key, value] : keys) {
    SLUICE_CHECK(names.insert(key).second, path, ": key ", key, " twice");
    h.text(key);
    h.value(value);
  }
  int64_t offset = 0;
  for (GgufTensor& t : tensors) {
    check(t, path);
    t.begin = offset;
    offset = aligned(offset + t.bytes());
    h.text(t.name);
    h.number(uint32_t(t.shape.size()));
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d) h.number(uint64_t(*d));
    h.number(uint32_t(t.type));
    h.number(uint64_t(t.begin));
  }
  const int64_t data = aligned(int64_t(h.bytes().size()));
  file_.write(0, h.bytes().data(), int64_t(h.bytes().size()));
  if (data + offset > int64_t(h.bytes().size())) file_.write(data + offset - 1, "", 1);  // padding
  for (GgufTensor& t : tensors) {
    t.begin += data;
    SLUICE_CHECK(tensors_.emplace(t.name, Progress{t}).second, path, ": tensor ", t.name, " twice");
  }
}

GgufWriter::~GgufWriter() {
  if (!finished_) ::unlink(partial(path_).c_str());
}

void GgufWriter::append(const std::string& name, const float* values, int64_t n) {
  const auto it = tensors_.find(name);
  SLUICE_CHECK(it != tensors_.end(), path_, ": tensor ", name, " was not declared");
  Progress& p = it->second;
  const GgufTensor& t = p.tensor;
  SLUICE_CHECK(p.elements + n <= t.numel(), path_, ": tensor ", name, ": ", p.elements + n, " of ",
               t.numel(), " elements");
  const GgufBlock& b = block_of(t.type);
  const int64_t bytes = n / b.elements * b.bytes;
  block_.resize(size_t(bytes));
  try {
    encode(t.type, values, n, block_.data());
  } catch (const Error& e) {
    throw Error(cat(path_, ": tensor ", name, ": ", e.what()));
  }
  file_.write(t.begin + p.elements / b.elements * b.bytes, block_.data(), bytes);
  p.elements += n;
}

void GgufWriter::finish() {
  for (const auto& [name, p] : tensors_)
    SLUICE_CHECK(p.elements == p.tensor.numel(), path_, ": tensor ", name, ": ", p.elements, " of ",
                 p.tensor.numel(), " elements were written");
  file_.sync();
  file_.close();
  rename_path(partial(path_), path_);
  finished_ = true;
  sync_folder(parent_of(path_));
}

}  // namespace sluice
