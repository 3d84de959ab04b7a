// kernels/tensor/buffer.cpp -- host memory from aligned_alloc, device memory from cudaMalloc.
#include "kernels/tensor/buffer.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

static std::atomic<int64_t> allocated[2];  // by Device

int64_t allocated_bytes(Device device) {
  return allocated[size_t(device)];
}

void* allocate_bytes(Device device, int64_t bytes) {
  allocated[size_t(device)] += bytes;
  const size_t padded = size_t((bytes + 256) / 256 * 256);
  if (device == Device::cpu) {
    void* p = std::aligned_alloc(256, padded);
    SLUICE_CHECK(p, "out of memory: ", bytes, " bytes on the host");
    return p;
  }
#ifdef SLUICE_CUDA_BUILD
  void* p = nullptr;
  SLUICE_CUDA(cudaMalloc(&p, padded));
  return p;
#else
  SLUICE_CHECK(false, "this build has no CUDA");
  return nullptr;
#endif
}

void free_bytes(Device device, void* p, int64_t bytes) {
  allocated[size_t(device)] -= bytes;
  if (device == Device::cpu) return std::free(p);
#ifdef SLUICE_CUDA_BUILD
  (void)cudaFree(p);  // called by destructors, which must not throw
#endif
}

Buffer::Buffer(DType dtype, std::initializer_list<int64_t> shape, Device device)
    : view_(make_tensor(nullptr, dtype, device, shape)) {
  allocate();
}

Buffer::Buffer(const Tensor& like) : view_(like) {
  int64_t step = 1;
  for (int i = view_.rank - 1; i >= 0; --i) {
    view_.stride[i] = step;
    step *= view_.shape[i];
  }
  allocate();
}

void Buffer::allocate() {
  const int64_t bytes = view_.bytes();
  view_.data = allocate_bytes(view_.device, bytes);
  memory_ = std::unique_ptr<void, FreeBytes>(view_.data, FreeBytes{view_.device, bytes});
  if (view_.device == Device::cpu) {
    std::memset(view_.data, 0, size_t(bytes));
    return;
  }
#ifdef SLUICE_CUDA_BUILD
  SLUICE_CUDA(cudaMemset(view_.data, 0, size_t(bytes)));
#endif
}

void copy(const Tensor& from, const Tensor& to) {
  SLUICE_CHECK(from.dense() && to.dense() && from.dtype == to.dtype && from.numel() == to.numel(),
               "from ", to_string(from), " to ", to_string(to));
  if (from.device == Device::cpu && to.device == Device::cpu) {
    std::memmove(to.data, from.data, size_t(from.bytes()));
    return;
  }
#ifdef SLUICE_CUDA_BUILD
  SLUICE_CUDA(cudaMemcpy(to.data, from.data, size_t(from.bytes()), cudaMemcpyDefault));
#else
  SLUICE_CHECK(false, "this build has no CUDA");
#endif
}

}  // namespace sluice
