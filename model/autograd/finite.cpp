// model/autograd/finite.cpp -- the search for the first element that is not finite.
#include <cmath>

#include "kernels/tensor/buffer.h"
#include "model/autograd/tape.h"

namespace sluice {

template <class T>
static void search(const Tensor& t, const std::string& what) {
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
  if (bad > 0)
    throw Error(cat(what, " ", to_string(t), " has ", bad,
                    " elements that are not finite, the first is ", value, " at element ", first));
}

void check_finite(const Context& ctx, const Tensor& t, const std::string& what) {
  if (ctx.mode == Mode::plan || t.numel() == 0) return;
  if (t.dtype != DType::f32 && t.dtype != DType::f64) return;
  if (ctx.device == Device::cpu) {
    t.dtype == DType::f64 ? search<double>(t, what) : search<float>(t, what);
    return;
  }
  SLUICE_CHECK(t.dense(), what, ": a strided device tensor");
  Buffer host(make_tensor(nullptr, t.dtype, Device::cpu, {t.numel()}));
  copy(t, host.view());
  check_finite({}, host.view(), what);
}

}  // namespace sluice
