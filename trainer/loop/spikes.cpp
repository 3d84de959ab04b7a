// trainer/loop/spikes.cpp -- mean and deviation over the window, summed anew each time: the same
// numbers whether or not the run was resumed.
#include "trainer/loop/spikes.h"

#include <fmt/format.h>

#include <cmath>

namespace sluice {

static std::string above(const char* what, double x, const std::deque<double>& window,
                         double sigmas) {
  double mean = 0, square = 0;
  for (const double y : window) mean += y;
  mean /= double(window.size());
  for (const double y : window) square += (y - mean) * (y - mean);
  const double deviation = std::sqrt(square / double(window.size()));
  if (!(x > mean + sigmas * deviation)) return "";
  return fmt::format("{} {:.4g}, the {} steps before: mean {:.4g}, deviation {:.2g}", what, x,
                     window.size(), mean, deviation);
}

std::string SpikeDetector::judge(double loss, double grad_norm) {
  if (!std::isfinite(loss) || !std::isfinite(grad_norm)) return "";
  std::string text;
  if (int64_t(losses_.size()) == config_.window_steps) {
    text = above("loss", loss, losses_, config_.sigmas);
    const std::string norm = above("gradient norm", grad_norm, norms_, config_.sigmas);
    if (!norm.empty()) text += (text.empty() ? "" : "; ") + norm;
    losses_.pop_front();
    norms_.pop_front();
  }
  losses_.push_back(loss);
  norms_.push_back(grad_norm);
  return text;
}

void SpikeDetector::save(std::map<std::string, double>& numbers) const {
  for (size_t i = 0; i < losses_.size(); ++i) {
    numbers[fmt::format("spike.loss.{:06}", i)] = losses_[i];
    numbers[fmt::format("spike.norm.{:06}", i)] = norms_[i];
  }
}

void SpikeDetector::load(const std::map<std::string, double>& numbers) {
  losses_.clear();
  norms_.clear();
  for (const auto& [key, value] : numbers) {  // sorted by name, so by age
    if (key.rfind("spike.loss.", 0) == 0) losses_.push_back(value);
    if (key.rfind("spike.norm.", 0) == 0) norms_.push_back(value);
  }
  while (int64_t(losses_.size()) > config_.window_steps) {  // a config with a shorter window
    losses_.pop_front();
    norms_.pop_front();
  }
}

}  // namespace sluice
