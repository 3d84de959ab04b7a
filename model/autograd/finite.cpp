// model/autograd/finite.cpp -- the search for the first element that is not finite.
#include <cmath>
#include <cstring>

#include "kernels/tensor/buffer.h"
#include "model/autograd/tape.h"

namespace sluice {

template <class T>
static std::string search(const Tensor& t) {
  const int64_t rows = t.dense() ? 1 : t.shape[0], width = t.numel() / std::max<int64_t>(rows, 1);
  int64_t bad = 0, first = -1;
  T value = 0;
  for (int64_t n = 0; n < rows; ++n) {
    const T* x = t.as<T>() + n * t.stride[0];
    for (int64_t c = 0; c < width; ++c) {
      if (std::isfinite(x[c])) continue;
      if (bad++ == 0) first = n * width + c, value = x[c];
    }
  }
  if (bad == 0) return "";
  return cat(to_string(t), " has ", bad, " elements that are not finite, the first is ", value,
             " at element ", first);
}

// Row by row, since rows of a device tensor may be strided; bf16 as f32.
static Buffer on_host_as_f32(const Tensor& t) {
  const int64_t rows = t.dense() ? 1 : t.shape[0], width = t.numel() / rows;
  const DType wide = sum_type(t.dtype);
  Buffer host(wide, {rows, width});
  const Buffer raw(t.dtype, {width});
  for (int64_t n = 0; n < rows; ++n) {
    const Tensor row = make_tensor(static_cast<char*>(t.data) + n * t.stride[0] * size_of(t.dtype),
                                   t.dtype, t.device, {width});
    if (wide == t.dtype) {
      copy(row, host.view().rows(n, 1));
      continue;
    }
    copy(row, raw.view());
    for (int64_t c = 0; c < width; ++c) {
      const uint32_t bits = uint32_t(static_cast<const uint16_t*>(raw.view().data)[c]) << 16;
      std::memcpy(host.view().row<float>(n) + c, &bits, sizeof bits);
    }
  }
  return host;
}

std::string describe_nonfinite(const Context& ctx, const Tensor& t) {
  if (ctx.mode == Mode::plan || t.numel() == 0) return "";
  if (t.dtype != DType::f32 && t.dtype != DType::f64 && t.dtype != DType::bf16) return "";
  if (t.device == Device::cuda) return describe_nonfinite({}, on_host_as_f32(t).view());
  return t.dtype == DType::f64 ? search<double>(t) : search<float>(t);
}

}  // namespace sluice
