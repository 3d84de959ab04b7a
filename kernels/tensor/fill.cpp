// kernels/tensor/fill.cpp -- memset and one-element copies.
#include "kernels/tensor/fill.h"

#include <cstring>

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

void zero(const Context& ctx, const Tensor& t) {
  if (ctx.mode == Mode::plan || t.numel() == 0) return;
  const int64_t rows = t.dense() ? 1 : t.shape[0];
  const size_t width = size_t(t.bytes() / rows), pitch = size_t(t.stride[0] * size_of(t.dtype));
  if (ctx.device == Device::cpu) {
    for (int64_t n = 0; n < rows; ++n)
      std::memset(static_cast<char*>(t.data) + size_t(n) * pitch, 0, width);
    return;
  }
#ifdef SLUICE_CUDA_BUILD
  if (rows == 1)
    SLUICE_CUDA(cudaMemsetAsync(t.data, 0, width, ctx.stream));
  else
    SLUICE_CUDA(cudaMemset2DAsync(t.data, pitch, 0, width, size_t(rows), ctx.stream));
#endif
}

void set_scalar(const Context& ctx, const Tensor& t, double value) {
  check_shape(t, "t", {1}, DType::f64, ctx.device);
  if (ctx.mode == Mode::plan) return;
  if (ctx.device == Device::cpu) {
    *t.as<double>() = value;
    return;
  }
#ifdef SLUICE_CUDA_BUILD
  SLUICE_CUDA(cudaMemcpyAsync(t.data, &value, sizeof value, cudaMemcpyHostToDevice, ctx.stream));
#endif
}

}  // namespace sluice
