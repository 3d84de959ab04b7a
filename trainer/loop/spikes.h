// trainer/loop/spikes.h -- is a loss or a gradient norm far above what came before?
#pragma once

#include <deque>
#include <map>
#include <string>

#include "trainer/loop/config.h"

namespace sluice {

// The last finite losses and norms. Spikes stay in the window: a level that lasts becomes the
// normal one. Nothing is judged before the window is full.
class SpikeDetector {
 public:
  explicit SpikeDetector(const SpikeConfig& config) : config_(config) {}

  // Empty: no spike; otherwise what is out of line, with its mean and deviation. Then adds the two.
  std::string judge(double loss, double grad_norm);

  // For a checkpoint: a resumed run judges the same.
  void save(std::map<std::string, double>& numbers) const;
  void load(const std::map<std::string, double>& numbers);

 private:
  SpikeConfig config_;
  std::deque<double> losses_, norms_;  // oldest first, of equal length
};

}  // namespace sluice
