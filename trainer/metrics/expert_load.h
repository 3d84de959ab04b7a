// trainer/metrics/expert_load.h -- how evenly a step used its experts.
#pragma once

#include <string>

#include "kernels/tensor/tensor.h"
#include "trainer/metrics/jsonl.h"

namespace sluice {

// Of the layers with experts: largest load over mean load (1: even; E / k: k experts get all).
struct ExpertLoad {
  double worst = 1;  // of the worst layer
  double mean = 1;   // over the layers
  int64_t idle = 0;  // experts of all layers without a token
  int64_t experts = 0;
};

// counts [layers, E] i64 on the host, as StepStats has them.
ExpertLoad expert_load(const Tensor& counts);

// "max/mean 1.42 (worst layer 1.80), idle experts 0 of 48"
std::string to_string(const ExpertLoad& load);
// expert_load_worst, expert_load_mean, experts_idle
void append(MetricFields& fields, const ExpertLoad& load);

}  // namespace sluice
