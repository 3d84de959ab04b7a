// kernels/sample/sample.h -- one token from each row of logits: greedy, or a draw.
//
//   temperature 0: the largest logit, the lowest id of equals; logprob = log softmax(logits)
//   otherwise: ids in order of falling logit, equals by id. Kept are the first top_k of them (0:
//   all), and of these the shortest prefix that has top_p of their mass under w = exp(logit /
//   temperature). Then an inversion of the cumulative distribution of the kept ids, in order of id,
//   at u = random_uniform(key, position); logprob = log(w / sum of kept w): of what was drawn from.
//
// A draw is a function of the row and its rule alone. NaN anywhere in a row, or no finite largest
// logit, throws; on CUDA, which does not wait, the token is -1 then. Dims: N rows, V vocabulary.
// Forward only. T is f32 or f64 on the CPU, bf16 on CUDA.
#pragma once

#include <span>

#include "kernels/tensor/context.h"

namespace sluice {

struct SampleRule {
  double temperature = 0;
  int64_t top_k = 0;  // 0: all
  double top_p = 1;   // above 0
  uint64_t key = 0;   // of the request: kernels/tensor/rng.h
  int64_t position = 0;
};

struct Sample {
  Tensor logits;                      // in  [N, V] T, rows may be strided
  std::span<const SampleRule> rules;  // in  [N], on the host
  Tensor token;                       // out [N] i32
  Tensor logprob;                     // out [N] f32
};

void sample(const Context& ctx, const Sample& a);

}  // namespace sluice
