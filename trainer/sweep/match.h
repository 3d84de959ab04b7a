// trainer/sweep/match.h -- parameters and FLOPs of a config, and the width that makes them equal.
#pragma once

#include <functional>
#include <string>

#include "trainer/loop/config.h"

namespace sluice {

// From the specs alone: no parameter is allocated. config.model.vocab_size is set.
struct ModelSize {
  int64_t parameters = 0, active_parameters = 0;
  double flops_per_token = 0;  // of training, at data.seq_len_tokens
};
ModelSize model_size(const Config& config);
double training_flops(const Config& config, const ModelSize& size);  // of all steps

struct Width {
  int64_t width = 0;
  double count = 0;  // what it gives
};
// Of the multiples of `multiple_of`, the width whose count is the closest to `target`. `count` must
// not fall as the width grows. Throws if the closest is off by more than `tolerance` of the target,
// with both neighbours, or if the width changes nothing.
Width solve_width(const std::function<double(int64_t)>& count, double target, int64_t multiple_of,
                  double tolerance);

}  // namespace sluice
