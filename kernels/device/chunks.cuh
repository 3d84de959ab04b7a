// kernels/device/chunks.cuh -- one launch over many tensors, cut into chunks of one size.
//
// The list of tensors is a parameter of the kernel, so it needs no memory of its own and a captured
// graph keeps it. Chunk c belongs to the last entry whose `first` is not above c.
#pragma once

#include <cstdint>

namespace sluice {

// The entry of chunk c. Entries have `first`, which does not fall; that of entry 0 is 0.
template <class Entry>
__device__ inline int entry_of(const Entry* entries, int count, int c) {
  int low = 0, high = count;  // the answer is in [low, high)
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (entries[middle].first <= c)
      low = middle;
    else
      high = middle;
  }
  return low;
}

}  // namespace sluice
