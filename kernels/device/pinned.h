// kernels/device/pinned.h -- memory of the host that a GPU copies to and from while the host goes
// on.
#pragma once

#include <memory>

#include "kernels/tensor/tensor.h"

namespace sluice {

struct FreePinned {
  Device device = Device::cpu;
  int64_t bytes = 0;
  void operator()(void* p) const;
};

// Zeros at first. For Device::cpu it is plain memory.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(Device device, int64_t bytes);

  // [bytes] u8
  const Tensor& view() const { return view_; }

 private:
  Tensor view_;
  std::unique_ptr<void, FreePinned> memory_;
};

}  // namespace sluice
