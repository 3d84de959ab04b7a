// kernels/device/pinned.cpp -- cudaHostAlloc, or plain memory.
#include "kernels/device/pinned.h"

#include <cstring>

#include "kernels/tensor/buffer.h"

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

static void* allocate(Device device, int64_t bytes) {
  if (device == Device::cpu) return allocate_bytes(Device::cpu, bytes);
#ifdef SLUICE_CUDA_BUILD
  void* p = nullptr;
  SLUICE_CUDA(cudaHostAlloc(&p, size_t(bytes), cudaHostAllocDefault));
  return p;
#else
  SLUICE_CHECK(false, "this build has no CUDA");
  return nullptr;
#endif
}

PinnedBuffer::PinnedBuffer(Device device, int64_t bytes)
    : memory_(allocate(device, bytes), FreePinned{device, bytes}) {
  std::memset(memory_.get(), 0, size_t(bytes));
  view_ = make_tensor(memory_.get(), DType::u8, Device::cpu, {bytes});
}

void FreePinned::operator()(void* p) const {
  if (device == Device::cpu) return free_bytes(Device::cpu, p, bytes);
#ifdef SLUICE_CUDA_BUILD
  (void)cudaFreeHost(p);  // a destructor
#endif
}

}  // namespace sluice
