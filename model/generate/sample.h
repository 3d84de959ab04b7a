// model/generate/sample.h -- one token from a row of logits.
#pragma once

#include <cstdint>

#include "kernels/tensor/tensor.h"

namespace sluice {

// The index of the largest logit, the lowest one of equals. logits [V] f32 or f64 on the host.
int32_t argmax(const Tensor& logits_V);

// A draw from softmax(logits / temperature), a pure function of (key, position): the same seed
// gives the same text whatever else runs. temperature > 0.
int32_t sample(const Tensor& logits_V, double temperature, uint64_t key, int64_t position);

}  // namespace sluice
