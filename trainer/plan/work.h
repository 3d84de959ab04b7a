// trainer/plan/work.h -- what one rank computes in a step, and how long that takes by measured
// rates.
#pragma once

#include <string>
#include <vector>

#include "model/lm/lm.h"
#include "trainer/loop/config.h"
#include "trainer/plan/figures.h"

namespace sluice {

// Of one token's forward pass: FLOPs by what makes them, and bytes of activations that ops which
// only read and write them move, forward and backward.
struct TokenWork {
  double linear = 0, head = 0, experts = 0, kda = 0, attention = 0;
  double moved_forward = 0, moved_backward = 0;
};
TokenWork token_work(const Lm& lm, int64_t context_tokens, int64_t activation_bytes);

// Of one rank's update.
struct UpdateWork {
  double bytes = 0;       // read and written where the shards are
  double host_bytes = 0;  // of states that lie on the host, each way
  double flops = 0;       // of Newton-Schulz
};

struct Seconds {
  std::string what;
  double seconds;
};

// One micro-batch of so many tokens, forward and backward, and what `recompute` makes again.
std::vector<Seconds> micro_batch_seconds(const TokenWork& work, int64_t tokens, Recompute recompute,
                                         const ComputeFigures& f);
std::vector<Seconds> update_seconds(const UpdateWork& work, const Figures& f);

double sum(const std::vector<Seconds>& rows);

}  // namespace sluice
