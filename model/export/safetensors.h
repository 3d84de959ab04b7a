// model/export/safetensors.h -- write and read .safetensors files, tensor by tensor.
//
// Format: u64 little-endian N; N bytes of JSON, {"name": {"dtype", "shape", "data_offsets": [begin,
// end]}, ..., "__metadata__": {string: string}}; then the data, row-major and little-endian,
// without holes, offsets relative to its start. Types: F32, F64, BF16, I32, I64, U8; others are
// refused.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels/tensor/tensor.h"
#include "model/export/posix_file.h"

namespace sluice {

// One tensor of a file. A shape of no dimensions is a scalar; as a Tensor it is a [1].
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;

  int64_t begin = 0, end = 0;  // bytes in the data section; the writer chooses them itself

  int64_t numel() const;
};

std::string to_string(const SafetensorsEntry&);  // "f32 [3, 5]"

// Nothing appears under `path` before finish(), which puts the complete file there in one step and
// replaces what was there. Until then the data are in `path`.partial, which a writer that is
// destroyed unfinished removes.
class SafetensorsWriter {
 public:
  // Writes the header. In the file, tensors lie in the order of `entries`, wide types first (then
  // all are aligned); they may be written in any order.
  SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> entries,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The whole tensor, on the host, dtype and shape as declared; rows may be strided.
  void write(const std::string& name, const Tensor& t);
  // Elements first_element ... + t.numel() of the tensor in row-major order, whatever the shape of
  // t. Every element must be written once; twice is an Error.
  void write_slice(const std::string& name, int64_t first_element, const Tensor& t);

  // Throws if an element is missing; then fsync, rename, fsync of the folder.
  void finish();

 private:
  struct Progress {
    SafetensorsEntry entry;
    std::map<int64_t, int64_t> written;  // begin -> end, in elements, disjoint and merged
  };

  Progress& find(const std::string& name);
  void mark_written(Progress& p, int64_t begin, int64_t end);

  std::string path_;
  PosixFile file_;
  std::map<std::string, Progress> tensors_;
  int64_t data_start_ = 0;  // bytes
  bool finished_ = false;
};

// Tensors by name, in one file or in many. const calls may be made from several threads.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual const std::string& path() const = 0;  // for messages
  virtual const std::vector<SafetensorsEntry>& entries() const = 0;
  virtual const SafetensorsEntry* find(const std::string& name) const = 0;  // null: there is none
  // Elements first_element ... + out.numel() of the tensor in row-major order; `out` on the host.
  virtual void read_slice(const std::string& name, int64_t first_element,
                          const Tensor& out) const = 0;

  // `out` has the tensor's dtype and shape; rows may be strided where read_slice() can.
  void read(const std::string& name, const Tensor& out) const;

 protected:
  const SafetensorsEntry& at(const std::string& name) const;  // throws if there is none
};

// Checks the whole header at once: every rule of the format, so that a bad file is refused before
// any of it is used.
class SafetensorsReader final : public TensorSource {
 public:
  explicit SafetensorsReader(const std::string& path);

  const std::string& path() const override { return file_.path(); }
  const std::vector<SafetensorsEntry>& entries() const override { return entries_; }  // file order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  const SafetensorsEntry* find(const std::string& name) const override;
  void read_slice(const std::string& name, int64_t first_element, const Tensor& out) const override;

 private:
  PosixFile file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, size_t> index_;  // name -> entries_
  std::map<std::string, std::string> metadata_;
  int64_t data_start_ = 0;  // bytes
};

}  // namespace sluice
