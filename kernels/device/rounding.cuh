// kernels/device/rounding.cuh -- E states at a time, stored as bf16 by stochastic rounding.
#pragma once

#include "kernels/device/vec.cuh"
#include "kernels/tensor/stochastic.h"

namespace sluice {

// Of elements i .. i + E of an update's tensors. With E = 8 rounding.begin + i is a multiple of 4.
template <int E>
__device__ inline void draw(uint32_t (&random)[E], const StateRounding& rounding, int64_t i,
                            int64_t step) {
  static_assert(E == 1 || E == 8);
  const int64_t element = rounding.begin + i;
  if constexpr (E == 1) {
    random[0] = rounding_bits(rounding.key, element, step);
  } else {
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const PhiloxWords r = philox_words(rounding.key, uint64_t(element / 4 + q), uint64_t(step));
#pragma unroll
      for (int w = 0; w < 4; ++w) random[4 * q + w] = r.w[w];
    }
  }
}

// By 16 of the random bits, from bit `shift` on.
template <int shift, int E>
__device__ inline void store_rounded(bf16* p, const float (&x)[E], const uint32_t (&random)[E]) {
  static_assert(E == 1 || E == 8);
  if constexpr (E == 1) {
    *p = __ushort_as_bfloat16(round_stochastic(x[0], random[0] >> shift & 0xffff));
  } else {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      words[j] = round_stochastic(x[2 * j], random[2 * j] >> shift & 0xffff) |
                 uint32_t(round_stochastic(x[2 * j + 1], random[2 * j + 1] >> shift & 0xffff))
                     << 16;
    *reinterpret_cast<uint4*>(p) = {words[0], words[1], words[2], words[3]};
  }
}

}  // namespace sluice
