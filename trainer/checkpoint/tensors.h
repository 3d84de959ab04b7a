// trainer/checkpoint/tensors.h -- the whole tensors of a checkpoint, whatever files they are in.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "model/export/safetensors.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {

SafetensorsEntry entry_of(const NamedTensor& n);  // the whole tensor

// Consecutive elements of a tensor that lie in one file.
struct SavedPiece {
  std::string file;
  int64_t begin = 0, end = 0;
  uint32_t crc32 = 0;
};
using SavedPieces = std::map<std::string, std::vector<SavedPiece>>;  // of each tensor, in order

// By the manifest alone. Every element of every tensor must be in exactly one file: what is wrong
// goes to `problems`, "weights-00001-of-00004.safetensors: tensor 'x', f32 [3, 5]: ...".
SavedPieces pieces_of(const Manifest& manifest, Part part, std::vector<std::string>* problems);

// Throws if the manifest is broken; that of the files has been looked at when the checkpoint was
// found. Files are opened as they are needed.
class CheckpointTensors final : public TensorSource {
 public:
  CheckpointTensors(const CheckpointRef& ref, Part part);

  const std::string& path() const override { return path_; }  // the file, or of many the folder
  const std::vector<SafetensorsEntry>& entries() const override { return entries_; }
  const SafetensorsEntry* find(const std::string& name) const override;
  void read_slice(const std::string& name, int64_t first_element,
                  const Tensor& out) const override;  // rows of `out` are dense
  // The same, and a piece that is read as a whole must have its checksum.
  void read_checked(const std::string& name, int64_t first_element, const Tensor& out) const;

  // That the whole tensor must have; none if the manifest does not know it.
  std::optional<uint32_t> crc32(const std::string& name) const;

 private:
  std::shared_ptr<const SafetensorsReader> open(const std::string& file) const;
  void read(const std::string& name, int64_t first, const Tensor& out, bool checked) const;

  std::string folder_, path_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, size_t> index_;  // name -> entries_
  SavedPieces pieces_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<const SafetensorsReader>> open_;
};

}  // namespace sluice
