// data/loader/permutation.h -- a pseudo-random order of n rows in no memory.
#pragma once

#include <cstdint>

namespace sluice {

// A bijection of 0 .. n-1, a pure function of (key, i): a Feistel network of four rounds over the
// next even power of two, walked until it lands below n (Black and Rogaway, 2002, "cycle walking").
int64_t permuted(uint64_t key, int64_t n, int64_t i);

}  // namespace sluice
