// kernels/gdn/gdn_op.h -- GDN and Mamba2 as a type, for code that is the same for every chunked
// recurrence.
#pragma once

#include "kernels/gdn/gdn.h"

namespace sluice {

struct GdnOp {
  using Forward = GdnForward;
  using Backward = GdnBackward;
  using Params = GdnParams;
  static constexpr bool kGateByChannel = false;  // g and dt_bias have a channel for each of K
  static bool has_beta(const Params& p) { return p.delta_rule; }
  static int64_t saved_bytes(const Context& ctx, const Forward& f) {
    return gdn_saved_bytes(ctx, f);
  }
  static void forward(const Context& ctx, const Forward& f) { gdn_forward(ctx, f); }
  static void backward(const Context& ctx, const Backward& b) { gdn_backward(ctx, b); }
};

}  // namespace sluice
