// trainer/sweep/match.cpp -- doubling until the target is passed, then halving.
#include "trainer/sweep/match.h"

#include <fmt/format.h>

#include <cmath>

#include "model/autograd/plain_store.h"
#include "model/lm/cost.h"

namespace sluice {

ModelSize model_size(const Config& config) {
  PlainStore params(DType::f32);
  const Lm lm(config.model, params);
  return {.parameters = params.numel(),
          .active_parameters = active_parameters(lm, params),
          .flops_per_token = train_flops_per_token(lm, config.data.seq_len_tokens)};
}

double training_flops(const Config& config, const ModelSize& size) {
  return size.flops_per_token * double(config.train.steps * config.train.batch_tokens);
}

Width solve_width(const std::function<double(int64_t)>& count, double target, int64_t multiple_of,
                  double tolerance) {
  constexpr int64_t kLargest = int64_t(1) << 31;
  const auto at = [&](int64_t k) { return Width{k * multiple_of, count(k * multiple_of)}; };
  const auto deviation = [&](const Width& w) { return w.count / target - 1; };
  Width below = at(1), above = below;
  int64_t k = 1, upper = 1;
  while (above.count < target) {
    below = above;
    k = upper;
    upper *= 2;
    if (upper * multiple_of > kLargest)
      throw Error(fmt::format("no width reaches {:.0f}: {} gives {:.0f}", target, above.width,
                              above.count));
    above = at(upper);
    if (above.count == below.count)
      throw Error(fmt::format("it changes nothing: {} and {} give {:.0f}", below.width, above.width,
                              above.count));
  }
  while (upper - k > 1) {
    const int64_t middle = k + (upper - k) / 2;
    const Width w = at(middle);
    (w.count < target ? below : above) = w;
    (w.count < target ? k : upper) = middle;
  }
  const Width best = std::fabs(deviation(below)) < std::fabs(deviation(above)) ? below : above;
  if (std::fabs(deviation(best)) > tolerance)
    throw Error(
        fmt::format("expected within {:.3g} % of {:.0f}; {} gives {:.0f} ({:+.3f} %), "
                    "{} gives {:.0f} ({:+.3f} %)",
                    100 * tolerance, target, below.width, below.count, 100 * deviation(below),
                    above.width, above.count, 100 * deviation(above)));
  return best;
}

}  // namespace sluice
