// kernels/tensor/stochastic.h -- f32 to bf16 by stochastic rounding, and Philox for host and GPU.
//
// x lies between two neighbours a <= x < b in bf16 and becomes b with probability
// (x - a) / (b - a), in steps of 2^-16: the mean of many roundings is x. So a moving average in
// bf16 goes on moving where each change is less than half of its last place, which rounding to
// nearest would undo for ever. A bf16 number stays what it is.
//
// The random bits are a pure function of (key, step, element of the parameter): neither threads,
// nor devices, nor how a parameter is cut among ranks change them.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SLUICE_HD __host__ __device__
#else
#define SLUICE_HD
#endif

namespace sluice {

struct PhiloxWords {
  uint32_t w[4];
};

// Philox 4x32 with ten rounds; kernels/tensor/rng.h has its source.
SLUICE_HD inline PhiloxWords philox_words(uint64_t key, uint64_t counter, uint64_t stream) {
  uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = uint32_t(stream),
           c3 = uint32_t(stream >> 32), k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t old1 = c1, old3 = c3;
    c0 = uint32_t(p1 >> 32) ^ old1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ old3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// 32 random bits of one element in one step: the low half rounds its first state, the high half the
// second. Four neighbours share one call of Philox: those of philox_words(key, element / 4, step).
SLUICE_HD inline uint32_t rounding_bits(uint64_t key, int64_t element, int64_t step) {
  const PhiloxWords r = philox_words(key, uint64_t(element) / 4, uint64_t(step));
  const uint32_t low = element & 1 ? r.w[1] : r.w[0], high = element & 1 ? r.w[3] : r.w[2];
  return element & 2 ? high : low;
}

// The bits of x as bf16; `random` has 16 bits. Infinity and NaN stay; what is beyond the largest
// bf16 number may become infinity.
SLUICE_HD inline uint16_t round_stochastic(float x, uint32_t random) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return uint16_t((nan ? bits | 0x400000u : bits + random) >> 16);
}

inline float widen_bf16(uint16_t x) {
  const uint32_t bits = uint32_t(x) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// Which random bits round the states that an update writes, where these are bf16.
struct StateRounding {
  uint64_t key = 0;   // of the run's seed and the parameter
  int64_t begin = 0;  // element of the parameter that is element 0 of the update's tensors
};

}  // namespace sluice
