// kernels/sample/cuda_rule.h -- a SampleRule as the kernel reads it.
#pragma once

#include "kernels/sample/sample.h"

namespace sluice::cuda {

struct SampleOnDevice {
  int greedy, top_k;
  float inverse_temperature;
  double top_p, u;  // u: the random number of the draw
};

}  // namespace sluice::cuda
