// kernels/muon/scratch.h -- what the back ends share: memory of a call, and the polynomial.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/muon/muon.h"

namespace sluice {

// Matrices that are worked on at a time: by shape alone. On CUDA as many as 2^25 elements have, one
// at least, so that small ones fill the chip.
inline int64_t muon_matrices(Device device, int64_t B, int64_t m, int64_t n) {
  const int64_t most = device == Device::cpu ? 8 : (int64_t(1) << 25) / std::max<int64_t>(m * n, 1);
  return std::min(B, std::max<int64_t>(most, 1));
}

struct MuonScratch {
  Tensor y;           // [G, m, n] W, G = muon_matrices()
  Tensor gram, poly;  // [G, s, s] W, s = min(m, n)
  Tensor squares;     // [G, kMuonParts] f64: CUDA
  Tensor workspace;   // of products: CUDA
};
constexpr int64_t kMuonParts = 64;  // of a matrix, whose squares are summed apart

// Of Jordan's iteration: steep at 0 (a), and near 1 it swings about 1 instead of converging.
constexpr double kMuonA = 3.4445, kMuonB = -4.7750, kMuonC = 2.0315;

// The factor of X, which gives the update the size of AdamW's.
inline double muon_size(int64_t longer) {
  return 0.2 * std::sqrt(double(longer));
}

}  // namespace sluice
