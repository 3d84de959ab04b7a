// kernels/tensor/rng.h -- random numbers as a pure function of (key, counter): Philox 4x32-10.
//
// No state to save, no order to keep: element i of a parameter has the same initial value on any
// number of ranks. Source: Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sluice {

std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter, uint64_t stream = 0);

// A key for a named purpose: hash of (seed, name), the same on every machine.
uint64_t rng_key(uint64_t seed, std::string_view name);

uint64_t random_u64(uint64_t key, uint64_t counter);
double random_uniform(uint64_t key, uint64_t counter);  // [0, 1), 53 bits
double random_normal(uint64_t key, uint64_t counter);   // mean 0, variance 1, by Box-Muller

}  // namespace sluice
