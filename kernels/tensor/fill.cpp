// kernels/tensor/fill.cpp -- memset and copies.
#include "kernels/tensor/fill.h"

#include <cstring>

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

namespace cuda {
void set_scalar(const Context& ctx, double* to, double value);
}

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

void copy_in_order(const Context& ctx, const Tensor& from, const Tensor& to) {
  if (ctx.mode == Mode::plan) return;
  if (ctx.device == Device::cpu) return copy(from, to);
  SLUICE_CHECK(from.dense() && to.dense() && from.dtype == to.dtype && from.numel() == to.numel() &&
                   to.device == ctx.device,
               "from ", to_string(from), " to ", to_string(to));
#ifdef SLUICE_CUDA_BUILD
  // Host memory is pageable, and read before the call returns.
  SLUICE_CUDA(
      cudaMemcpyAsync(to.data, from.data, size_t(from.bytes()), cudaMemcpyDefault, ctx.stream));
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
  cuda::set_scalar(ctx, t.as<double>(), value);
#endif
}

void copy_async(const Context& ctx, const Tensor& from, const Tensor& to) {
  SLUICE_CHECK(from.dense() && to.dense() && from.bytes() == to.bytes(), "from ", to_string(from),
               " to ", to_string(to));
  if (ctx.mode == Mode::plan || from.bytes() == 0) return;
  if (ctx.device == Device::cpu) {
    std::memmove(to.data, from.data, size_t(from.bytes()));
    return;
  }
#ifdef SLUICE_CUDA_BUILD
  SLUICE_CUDA(
      cudaMemcpyAsync(to.data, from.data, size_t(from.bytes()), cudaMemcpyDefault, ctx.stream));
#endif
}

}  // namespace sluice
