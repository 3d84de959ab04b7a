// trainer/metrics/expert_load.cpp -- row by row.
#include "trainer/metrics/expert_load.h"

#include <fmt/format.h>

#include <algorithm>

namespace sluice {

ExpertLoad expert_load(const Tensor& counts) {
  const int64_t L = counts.dim(0), E = counts.dim(1);
  ExpertLoad load{.experts = L * E};
  double sum_of_ratios = 0;
  for (int64_t l = 0; l < L; ++l) {
    const int64_t* c = counts.row<int64_t>(l);
    int64_t sum = 0, max = 0;
    for (int64_t e = 0; e < E; ++e) {
      sum += c[e];
      max = std::max(max, c[e]);
      load.idle += c[e] == 0;
    }
    const double ratio = sum > 0 ? double(max * E) / double(sum) : 1;
    load.worst = std::max(load.worst, ratio);
    sum_of_ratios += ratio;
  }
  if (L > 0) load.mean = sum_of_ratios / double(L);
  return load;
}

std::string to_string(const ExpertLoad& load) {
  return fmt::format("max/mean {:.2f} (worst layer {:.2f}), idle experts {} of {}", load.mean,
                     load.worst, load.idle, load.experts);
}

void append(MetricFields& fields, const ExpertLoad& load) {
  fields.emplace_back("expert_load_worst", load.worst);
  fields.emplace_back("expert_load_mean", load.mean);
  fields.emplace_back("experts_idle", double(load.idle));
}

}  // namespace sluice
