// kernels/tensor/rng.cpp -- what is made of Philox's words.
#include "kernels/tensor/rng.h"

#include <cmath>
#include <numbers>

#include "kernels/tensor/stochastic.h"

namespace sluice {

std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter, uint64_t stream) {
  const PhiloxWords r = philox_words(key, counter, stream);
  return {r.w[0], r.w[1], r.w[2], r.w[3]};
}

uint64_t rng_key(uint64_t seed, std::string_view name) {
  uint64_t h = 0xcbf29ce484222325u;  // FNV-1a, then one Philox block to spread it
  for (const char ch : name) h = (h ^ uint8_t(ch)) * 0x100000001b3u;
  const auto r = philox(seed, h);
  return uint64_t(r[1]) << 32 | r[0];
}

uint64_t random_u64(uint64_t key, uint64_t counter) {
  const auto r = philox(key, counter);
  return uint64_t(r[1]) << 32 | r[0];
}

static double unit(uint32_t high, uint32_t low) {
  return double((uint64_t(high) << 32 | low) >> 11) * 0x1p-53;
}

double random_uniform(uint64_t key, uint64_t counter) {
  const auto r = philox(key, counter);
  return unit(r[1], r[0]);
}

double random_normal(uint64_t key, uint64_t counter) {
  const auto r = philox(key, counter);
  const double u = 1 - unit(r[1], r[0]), angle = 2 * std::numbers::pi * unit(r[3], r[2]);
  return std::sqrt(-2 * std::log(u)) * std::cos(angle);
}

}  // namespace sluice
