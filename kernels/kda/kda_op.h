// kernels/kda/kda_op.h -- KDA as a type, for code that is the same for every chunked recurrence.
#pragma once

#include "kernels/kda/kda.h"

namespace sluice {

struct KdaOp {
  using Forward = KdaForward;
  using Backward = KdaBackward;
  using Params = KdaParams;
  static constexpr bool kGateByChannel = true;  // g and dt_bias have a channel for each of K
  static bool has_beta(const Params&) { return true; }
  static int64_t saved_bytes(const Context& ctx, const Forward& f) {
    return kda_saved_bytes(ctx, f);
  }
  static void forward(const Context& ctx, const Forward& f) { kda_forward(ctx, f); }
  static void backward(const Context& ctx, const Backward& b) { kda_backward(ctx, b); }
};

}  // namespace sluice
