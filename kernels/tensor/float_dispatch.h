// kernels/tensor/float_dispatch.h -- one call for f32 and f64: body receives a float{} or a
// double{}.
#pragma once

#include <type_traits>

#include "kernels/tensor/tensor.h"

namespace sluice {

template <class Body>
void for_float_type(const Tensor& t, Body body) {
  switch (t.dtype) {
    case DType::f32: return body(float{});
    case DType::f64: return body(double{});
    default: SLUICE_CHECK(false, "expected f32 or f64, got ", name(t.dtype));
  }
}

// What a Grad asks for: written, or added to.
template <class T>
inline void put(T& to, T value, bool add) {
  to = add ? to + value : value;
}

// body(std::true_type or std::false_type) for a long loop: with the flag known to the compiler it
// has no branch left, which would keep it from becoming SIMD.
template <class Body>
inline void for_flag(bool flag, Body body) {
  if (flag)
    body(std::true_type{});
  else
    body(std::false_type{});
}

}  // namespace sluice
