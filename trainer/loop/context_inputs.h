// trainer/loop/context_inputs.h -- a rank's piece of a micro-batch that its context group has read
// whole.
#pragma once

#include <optional>

#include "data/loader/batch.h"
#include "kernels/comm/sequence_exchange.h"

namespace sluice {

class ContextInputs {
 public:
  // `halo`: rows before its own that a convolution reads.
  ContextInputs(Comm& group, int64_t halo, Device device)
      : group_(group), halo_(halo), device_(device) {}

  // The largest piece that a micro-batch of this shape may give, with all keys. Nothing larger will
  // come than what was planned.
  MicroBatch plan(const MicroBatch& shape);
  // This rank's rows, and its documents; valid until the next call, as is the exchange.
  MicroBatch cut(const Context& ctx, const MicroBatch& batch);
  const SequenceExchange& exchange() const { return *exchange_; }

 private:
  Comm& group_;
  int64_t halo_;
  Device device_;
  Buffer documents_;         // [S + 1] i32 of the piece, on the host
  Buffer with_halo_, keys_;  // [S + 2], [S + 1] i32, on the device
  std::optional<SequenceExchange> exchange_;
};

}  // namespace sluice
