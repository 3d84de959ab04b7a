// kernels/tensor/buffer.h -- owner of one allocation.
#pragma once

#include <memory>

#include "kernels/tensor/tensor.h"

namespace sluice {

// Uninitialised memory of one device, 256-byte aligned; never null, also for 0 bytes.
void* allocate_bytes(Device device, int64_t bytes);
void free_bytes(Device device, void* p, int64_t bytes);
// Of all that is allocated now: what a plan is held to.
int64_t allocated_bytes(Device device);

struct FreeBytes {
  Device device = Device::cpu;
  int64_t bytes = 0;
  void operator()(void* p) const { free_bytes(device, p, bytes); }
};

// Zero-filled at creation, 256-byte aligned. Move-only; views die with it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(DType dtype, std::initializer_list<int64_t> shape, Device device = Device::cpu);
  explicit Buffer(const Tensor& like);  // same dtype, shape and device; dense

  const Tensor& view() const { return view_; }

 private:
  void allocate();

  Tensor view_;
  std::unique_ptr<void, FreeBytes> memory_;
};

// Copies equal shapes and dtypes between any two devices and returns when done (CUDA: a stream that
// still works on either side must be synchronized by the caller first).
void copy(const Tensor& from, const Tensor& to);

}  // namespace sluice
