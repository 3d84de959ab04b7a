// model/export/gguf_read.cpp -- strict parsing: files come from strangers.
#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "model/export/gguf.h"

namespace sluice {
namespace {

using Type = GgufValue::Type;

constexpr int64_t kMaxHeader = 256'000'000;  // bytes; vocabularies are some 10 MB
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr size_t kMaxName = 1024;

// "'blk.0...' (70000 bytes)": a name of a stranger in a message.
std::string in_quotes(const std::string& s) {
  constexpr size_t kShown = 80;
  return s.size() <= kShown ? "'" + s + "'"
                            : cat("'", s.substr(0, kShown), "...' (", s.size(), " bytes)");
}

// Reads forward, a piece at a time; never past the end of the file or kMaxHeader.
class Cursor {
 public:
  explicit Cursor(const PosixFile& file)
      : file_(file), size_(file.size()), end_(std::min(size_, kMaxHeader)) {}

  int64_t position() const { return position_; }
  int64_t left() const { return end_ - position_; }
  int64_t file_bytes() const { return size_; }

  template <class T>
  T number(const std::string& what) {
    T x;
    take(&x, sizeof x, what);
    return x;
  }
  std::string text(const std::string& what) {
    const auto n = number<uint64_t>(what);
    need(n, 1, what);
    std::string s(size_t(n), '\0');
    take(s.data(), int64_t(n), what);
    return s;
  }
  // Throws unless `count` things of at least `bytes` each fit into what is left.
  void need(uint64_t count, int64_t bytes, const std::string& what) const {
    SLUICE_CHECK(count <= uint64_t(left() / bytes), file_.path(), ": ", what, ": ", count,
                 " of at least ", bytes, " bytes at byte ", position_, ", ", left(), " are left",
                 end_ < size_ ? cat(" of the ", kMaxHeader, " that a header may have") : "");
  }

 private:
  void take(void* to, int64_t bytes, const std::string& what) {
    need(uint64_t(bytes), 1, what);
    auto* out = static_cast<char*>(to);
    while (bytes > 0) {
      if (at_ == held_) fill();
      const int64_t n = std::min(bytes, held_ - at_);
      std::memcpy(out, buffer_.data() + at_, size_t(n));
      at_ += n, position_ += n, out += n, bytes -= n;
    }
  }
  void fill() {
    at_ = 0;
    held_ = std::min(int64_t(buffer_.size()), end_ - position_);
    file_.read(position_, buffer_.data(), held_);
  }

  const PosixFile& file_;
  int64_t size_, end_, position_ = 0;
  int64_t at_ = 0, held_ = 0;  // in the buffer
  std::vector<char> buffer_ = std::vector<char>(1 << 16);
};

class HeaderReader {
 public:
  HeaderReader(const PosixFile& file, GgufKeys& keys, std::vector<GgufTensor>& tensors)
      : path_(file.path()), in_(file), keys_(keys), tensors_(tensors) {}

  void read() {
    SLUICE_CHECK(in_.file_bytes() >= 24, path_, ": ", in_.file_bytes(),
                 " bytes, expected 24 at least");
    const auto magic = in_.number<uint32_t>("magic"), version = in_.number<uint32_t>("version");
    SLUICE_CHECK(magic == 0x46554747, path_, ": does not begin with GGUF");
    SLUICE_CHECK(version == 2 || version == 3, path_, ": version ", version, ", expected 2 or 3",
                 version > 0 && (version & 0xffff) == 0 ? " (the file is big-endian)" : "");
    const auto tensors = in_.number<uint64_t>("tensors"), keys = in_.number<uint64_t>("keys");
    in_.need(keys, 13, "keys");  // of one letter, with one byte
    for (uint64_t i = 0; i < keys; ++i) read_key();
    in_.need(tensors, 25, "tensors");
    for (uint64_t i = 0; i < tensors; ++i) read_tensor();
    place();
  }

 private:
  void read_key() {
    const std::string key = in_.text("a key");
    SLUICE_CHECK(!key.empty() && key.size() <= kMaxName, path_, ": key ", in_quotes(key),
                 ", expected 1 to ", kMaxName, " bytes");
    SLUICE_CHECK(names_.insert(key).second, path_, ": key ", in_quotes(key), " appears twice");
    const std::string what = "key " + in_quotes(key);
    GgufValue v;
    v.type = Type(in_.number<uint32_t>(what));
    uint64_t count = 1;
    if (v.type == Type::list) {
      v.is_list = true;
      v.type = Type(in_.number<uint32_t>(what));
      count = in_.number<uint64_t>(what);
    }
    read_values(v, count, what);
    keys_.emplace_back(key, std::move(v));
  }

  void read_values(GgufValue& v, uint64_t count, const std::string& what) {
    switch (v.type) {
      case Type::u8: return numbers<uint8_t, uint64_t>(v, count, what);
      case Type::u16: return numbers<uint16_t, uint64_t>(v, count, what);
      case Type::u32: return numbers<uint32_t, uint64_t>(v, count, what);
      case Type::u64: return numbers<uint64_t, uint64_t>(v, count, what);
      case Type::i8: return numbers<int8_t, int64_t>(v, count, what);
      case Type::i16: return numbers<int16_t, int64_t>(v, count, what);
      case Type::i32: return numbers<int32_t, int64_t>(v, count, what);
      case Type::i64: return numbers<int64_t, int64_t>(v, count, what);
      case Type::f32: return numbers<float, double>(v, count, what);
      case Type::f64: return numbers<double, double>(v, count, what);
      case Type::boolean:
        numbers<uint8_t, uint64_t>(v, count, what);
        for (const uint64_t x : std::get<std::vector<uint64_t>>(v.values))
          SLUICE_CHECK(x <= 1, path_, ": ", what, ": a boolean of ", x);
        return;
      case Type::text: {
        in_.need(count, 8, what);
        auto& all = v.values.emplace<std::vector<std::string>>();
        for (uint64_t i = 0; i < count; ++i) all.push_back(in_.text(what));
        return;
      }
      case Type::list: break;  // of lists: nobody writes them, and llama.cpp refuses them too
    }
    SLUICE_CHECK(false, path_, ": ", what, ": type ", uint32_t(v.type),
                 v.is_list ? " of a list" : "", ", expected one of 0 to 12",
                 v.is_list ? " and not 9" : "");
  }

  template <class InFile, class Held>
  void numbers(GgufValue& v, uint64_t count, const std::string& what) {
    in_.need(count, sizeof(InFile), what);
    auto& all = v.values.emplace<std::vector<Held>>();
    all.reserve(size_t(count));
    for (uint64_t i = 0; i < count; ++i) all.push_back(Held(in_.number<InFile>(what)));
  }

  void read_tensor() {
    GgufTensor t;
    t.name = in_.text("a tensor's name");
    const std::string what = "tensor " + in_quotes(t.name);
    SLUICE_CHECK(!t.name.empty() && t.name.size() <= kMaxName, path_, ": ", what,
                 ", expected 1 to ", kMaxName, " bytes");
    SLUICE_CHECK(tensor_names_.insert(t.name).second, path_, ": ", what, " appears twice");
    const auto rank = in_.number<uint32_t>(what);
    SLUICE_CHECK(rank <= 4, path_, ": ", what, ": rank ", rank, ", expected 4 at most");
    int64_t elements = 1;  // a dimension of 0 counts as 1: then no product in any order overflows
    for (uint32_t i = 0; i < rank; ++i) {
      const auto d = in_.number<uint64_t>(what);
      const bool fits =
          d <= uint64_t(std::numeric_limits<int64_t>::max()) &&
          !__builtin_mul_overflow(elements, std::max<int64_t>(int64_t(d), 1), &elements);
      SLUICE_CHECK(fits, path_, ": ", what,
                   ": its number of elements overflows 64 bits at dimension ", d);
      t.shape.insert(t.shape.begin(), int64_t(d));
    }
    t.type = GgufType(in_.number<uint32_t>(what));
    const GgufBlock* b = find_block(t.type);
    SLUICE_CHECK(b, path_, ": ", what, ": unknown element type ", uint32_t(t.type));
    const int64_t row = rank > 0 ? t.shape.back() : 1;
    SLUICE_CHECK(row % b->elements == 0, path_, ": ", what, ": ", to_string(t), ": rows of ", row,
                 ", expected a multiple of ", b->elements);
    int64_t bytes = 0;
    SLUICE_CHECK(!__builtin_mul_overflow(elements / b->elements, b->bytes, &bytes), path_, ": ",
                 what, ": ", to_string(t), " has more bytes than 64 bits count");
    const auto offset = in_.number<uint64_t>(what);
    SLUICE_CHECK(offset <= uint64_t(in_.file_bytes()), path_, ": ", what, ": offset ", offset,
                 ", the file has ", in_.file_bytes(), " bytes");
    t.begin = int64_t(offset);
    tensors_.push_back(std::move(t));
  }

  // Tensors follow each other, each at the next multiple of the alignment, to the end of the file.
  void place() {
    int64_t alignment = 32;
    for (const auto& [key, v] : keys_) {
      if (key != "general.alignment") continue;
      const auto* x = std::get_if<std::vector<uint64_t>>(&v.values);
      const uint64_t a = x && v.type == Type::u32 && !v.is_list ? (*x)[0] : 0;
      SLUICE_CHECK(a >= 1 && a <= kMaxAlignment && (a & (a - 1)) == 0, path_,
                   ": general.alignment ", to_string(v), ", expected a power of 2 up to ",
                   kMaxAlignment, ", as u32");
      alignment = int64_t(a);
    }
    const auto aligned = [&](int64_t n) { return (n + alignment - 1) / alignment * alignment; };
    const int64_t data = aligned(in_.position());
    int64_t next = data, end = in_.position();
    for (GgufTensor& t : tensors_) {
      t.begin += data;
      SLUICE_CHECK(t.begin == next, path_, ": tensor ", in_quotes(t.name), ": begins at byte ",
                   t.begin, ", expected ", next, ", where the one before it ends");
      SLUICE_CHECK(t.bytes() <= in_.file_bytes() - t.begin, path_, ": tensor ", in_quotes(t.name),
                   ": ", to_string(t), " has ", t.bytes(), " bytes from byte ", t.begin,
                   ", the file has ", in_.file_bytes());
      end = t.begin + t.bytes();
      next = aligned(end);
    }
    // Writers pad the last tensor or do not.
    SLUICE_CHECK(in_.file_bytes() <= std::max(next, end), path_, ": ", in_.file_bytes(),
                 " bytes, its tensors end at ", end);
  }

  const std::string& path_;
  Cursor in_;
  GgufKeys& keys_;
  std::vector<GgufTensor>& tensors_;
  std::unordered_set<std::string> names_, tensor_names_;
};

}  // namespace

GgufReader::GgufReader(const std::string& path) : file_(PosixFile::open(path)) {
  HeaderReader(file_, keys_, tensors_).read();
}

const GgufValue* GgufReader::find(const std::string& key) const {
  for (const auto& k : keys_)
    if (k.first == key) return &k.second;
  return nullptr;
}

void GgufReader::read(const GgufTensor& t, int64_t first, int64_t n, float* out) const {
  const GgufBlock& b = block_of(t.type);
  SLUICE_CHECK(can_encode(t.type), path(), ": tensor ", t.name, ": values of type ", b.name,
               " are not read here");
  SLUICE_CHECK(first >= 0 && n >= 0 && n <= t.numel() - first && first % b.elements == 0 &&
                   n % b.elements == 0,
               path(), ": tensor ", t.name, ": elements ", first, " to ", first + n, " of ",
               t.numel(), ", expected whole blocks of ", b.elements);
  std::vector<char> bytes(size_t(n / b.elements * b.bytes));
  file_.read(t.begin + first / b.elements * b.bytes, bytes.data(), int64_t(bytes.size()));
  decode(t.type, bytes.data(), n, out);
}

}  // namespace sluice
