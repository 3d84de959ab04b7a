// kernels/tensor/rng.cpp -- Philox 4x32 with ten rounds.
#include "kernels/tensor/rng.h"

#include <cmath>
#include <numbers>

namespace sluice {

std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter, uint64_t stream) {
  std::array<uint32_t, 4> c{uint32_t(counter), uint32_t(counter >> 32), uint32_t(stream),
                            uint32_t(stream >> 32)};
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c[0], p1 = uint64_t(0xCD9E8D57u) * c[2];
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1,
         uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
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
