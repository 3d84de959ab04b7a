// data/loader/permutation.cpp -- rounds by Philox.
#include "data/loader/permutation.h"

#include "kernels/base/check.h"
#include "kernels/tensor/rng.h"

namespace sluice {

int64_t permuted(uint64_t key, int64_t n, int64_t i) {
  SLUICE_CHECK(n > 0 && i >= 0 && i < n, "element ", i, " of ", n);
  int half_bits = 1;
  while ((int64_t(1) << (2 * half_bits)) < n) ++half_bits;
  const uint64_t mask = (uint64_t(1) << half_bits) - 1;
  auto x = uint64_t(i);
  do {
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = left ^ (philox(key, right, round)[0] & mask);
      left = right;
      right = mixed;
    }
    x = left << half_bits | right;
  } while (x >= uint64_t(n));
  return int64_t(x);
}

}  // namespace sluice
