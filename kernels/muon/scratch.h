// kernels/muon/scratch.h -- what the back ends share: memory of a call, and the polynomial.
#pragma once

#include "kernels/muon/muon.h"

namespace sluice {

constexpr int64_t kMuonMatrices = 8;  // that are worked on at a time

struct MuonScratch {
  Tensor x, y;        // [min(B, kMuonMatrices), m, n] T
  Tensor gram, poly;  // [min(B, kMuonMatrices), s, s] T, s = min(m, n)
};

// Of Jordan's iteration: steep at 0 (a), and near 1 it swings about 1 instead of converging.
constexpr double kMuonA = 3.4445, kMuonB = -4.7750, kMuonC = 2.0315;

}  // namespace sluice
