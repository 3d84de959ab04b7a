// model/export/gguf.h -- write and read GGUF files, version 3: llama.cpp's models.
//
// Format: "GGUF"; u32 version; u64 tensors, u64 keys; the keys, each name, u32 type, value; the
// tensors, each name, u32 rank, u64 dims (the contiguous one first), u32 type, u64 offset; then the
// data, each tensor at a multiple of general.alignment (32). A text is u64 bytes and these; a list
// u32 type, u64 count, values. Little-endian.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "model/export/gguf_types.h"
#include "model/export/posix_file.h"

namespace sluice {

// What a key has: one value or a list. Numbers are held in the widest type of their kind; the file
// has `type`.
struct GgufValue {
  enum class Type : uint32_t {
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    f32,
    boolean,
    text,
    list,
    u64,
    i64,
    f64
  };

  Type type = Type::u32;  // of the elements
  bool is_list = false;
  std::variant<std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>,
               std::vector<std::string>>
      values{};

  static GgufValue u32(uint64_t x);
  static GgufValue f32(double x);
  static GgufValue boolean(bool x);
  static GgufValue text(std::string x);
  static GgufValue list(std::vector<std::string> x);
  static GgufValue i32_list(std::vector<int64_t> x);

  size_t size() const;
};

std::string to_string(const GgufValue& v);  // "0.5", "\"gpt2\"", "[0, 0, 1, ...] (27)"

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::f32;
  std::vector<int64_t> shape;  // row-major, as everywhere here: the last dimension is contiguous

  int64_t begin = 0;  // byte in the file; the writer chooses it itself

  int64_t numel() const;
  int64_t bytes() const;
};

std::string to_string(const GgufTensor& t);  // "q8_0 [64, 32]"

using GgufKeys = std::vector<std::pair<std::string, GgufValue>>;

// Nothing appears under `path` before finish(); until then the data are in `path`.partial, which a
// writer that is destroyed unfinished removes.
class GgufWriter {
 public:
  GgufWriter(const std::string& path, const GgufKeys& keys, std::vector<GgufTensor> tensors);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // The next n elements of the tensor, row-major; whole blocks of its type.
  void append(const std::string& name, const float* values, int64_t n);

  void finish();  // throws if an element is missing; then fsync, rename, fsync of the folder

 private:
  struct Progress {
    GgufTensor tensor;
    int64_t elements = 0;  // written
  };

  std::string path_;
  PosixFile file_;
  std::map<std::string, Progress> tensors_;
  std::vector<char> block_;  // what append() encodes into
  bool finished_ = false;
};

// Checks keys and tensors at once, so that a bad file is refused before any of it is used. const
// calls may be made from several threads.
class GgufReader {
 public:
  explicit GgufReader(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const GgufKeys& keys() const { return keys_; }  // in file order
  const GgufValue* find(const std::string& key) const;
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in file order

  // Elements first ... first + n; whole blocks of f32, f16, bf16 or q8_0.
  void read(const GgufTensor& t, int64_t first, int64_t n, float* out) const;

 private:
  PosixFile file_;
  GgufKeys keys_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace sluice
