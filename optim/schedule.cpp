// optim/schedule.cpp -- closed forms.
#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice {

double lr_at(const OptimConfig& config, int64_t step, int64_t total_steps) {
  const ScheduleConfig& s = config.schedule;
  const double rise = step < s.warmup_steps ? double(step) / double(s.warmup_steps) : 1;
  double fall = 1;  // from 1 to 0
  if (s.kind == "wsd" && s.decay_steps > 0) {
    const double x = std::clamp(
        double(step - 1 - (total_steps - s.decay_steps)) / double(s.decay_steps), 0.0, 1.0);
    fall = s.decay == "linear" ? 1 - x : 1 - std::sqrt(x);
  } else if (s.kind == "cosine") {
    const int64_t length = std::max<int64_t>(1, total_steps - s.warmup_steps);
    const double x = std::clamp(double(step - s.warmup_steps) / double(length), 0.0, 1.0);
    fall = (1 + std::cos(std::numbers::pi * x)) / 2;
  }
  return config.lr * std::min(rise, s.min_lr_ratio + (1 - s.min_lr_ratio) * fall);
}

}  // namespace sluice
