// tests/support/error.h -- how far a result is from its f64 reference, as a share of a bound.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/tensor/tensor.h"

namespace sluice::test {

struct ErrorStats {
  double worst = 0;    // max_i |got - want| / bound_i: above 1 is a failure
  int64_t index = -1;  // where, in row-major order
  double got = 0, want = 0;
  double rms = 0;  // ||got - want|| / ||want||
};

inline uint16_t to_bf16(double x) {  // to nearest, ties to even
  const auto bits = std::bit_cast<uint32_t>(float(x));
  if (std::isnan(x)) return uint16_t(0xffff);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline double from_bf16(uint16_t x) {
  return std::bit_cast<float>(uint32_t(x) << 16);
}

// Element i of a tensor of any float type, rows possibly strided, in row-major order.
inline double element(const Tensor& t, int64_t i) {
  const int64_t per_row = t.rank > 1 ? t.numel() / t.shape[0] : 1;
  const int64_t at = i / per_row * t.stride[0] + i % per_row;
  if (t.dtype == DType::bf16) return from_bf16(static_cast<const uint16_t*>(t.data)[at]);
  return t.dtype == DType::f64 ? t.as<double>()[at] : double(t.as<float>()[at]);
}
inline void set_element(const Tensor& t, int64_t i, double v) {
  const int64_t per_row = t.rank > 1 ? t.numel() / t.shape[0] : 1;
  const int64_t at = i / per_row * t.stride[0] + i % per_row;
  if (t.dtype == DType::bf16)
    static_cast<uint16_t*>(t.data)[at] = to_bf16(v);
  else if (t.dtype == DType::f64)
    t.as<double>()[at] = v;
  else
    t.as<float>()[at] = float(v);
}

// The bound for element i is  ulps * eps * max(|want_i|, rms(want)), eps that of got's dtype: a
// relative bound that does not explode next to zero. NaN and infinity in `got` are unbounded
// errors.
inline ErrorStats compare(const Tensor& got, const Tensor& want, double ulps) {
  ErrorStats s;
  SLUICE_CHECK(got.numel() == want.numel(), to_string(got), " against ", to_string(want));
  const double eps = got.dtype == DType::f64 ? std::numeric_limits<double>::epsilon()
                                             : double(std::numeric_limits<float>::epsilon());
  double sq_err = 0, sq_want = 0;
  const int64_t n = want.numel();
  for (int64_t i = 0; i < n; ++i) sq_want += element(want, i) * element(want, i);
  const double scale = std::sqrt(sq_want / double(std::max<int64_t>(n, 1)));
  for (int64_t i = 0; i < n; ++i) {
    const double g = element(got, i), w = element(want, i), err = std::abs(g - w);
    const double ratio = err == 0 ? 0 : err / (ulps * eps * std::max(std::abs(w), scale));
    if (!(ratio <= s.worst)) s = {std::isfinite(err) ? ratio : INFINITY, i, g, w, 0};
    sq_err += err * err;
  }
  s.rms = std::sqrt(sq_err / std::max(sq_want, 1e-300));
  return s;
}

inline std::ostream& operator<<(std::ostream& out, const ErrorStats& e) {
  return out << "element " << e.index << ": got " << e.got << ", want " << e.want << ", " << e.worst
             << " of the bound, rms error " << e.rms;
}

}  // namespace sluice::test
