// trainer/loop/batch_inputs.h -- a micro-batch where the ops read it.
//
// On the CPU that is where the loader filled it. On CUDA it is one buffer, always the same (so that
// a captured pass finds the next micro-batch there), to which a queued copy brings it from pinned
// memory. There are two pinned slots: the host is at most two micro-batches ahead of the GPU.
#pragma once

#include <array>
#include <optional>

#include "data/loader/loader.h"
#include "kernels/comm/sequence_exchange.h"
#include "kernels/device/pinned.h"
#include "kernels/device/stream.h"

namespace sluice {

class BatchInputs {
 public:
  explicit BatchInputs(Device device);

  struct View {
    Tensor tokens, targets;                      // [N] i32
    Tensor cu_seqlens;                           // [documents + 1] i32
    Tensor loss_scale;                           // [1] f64
    int64_t longest = 0;                         // as in MicroBatch
    const SequenceExchange* exchange = nullptr;  // of a piece: for the others
  };
  // There will be micro-batches of this shape. In plan mode nothing else is needed.
  View plan(const MicroBatch& shape);
  int64_t bytes() const { return bytes_; }  // of the device's buffer, for all that was planned
  void allocate();                          // that buffer and its slots, after the plans

  View put(const Context& ctx, const MicroBatch& batch, double loss_scale);

 private:
  View lay_out(const MicroBatch& shape, char* at) const;

  Device device_;
  int64_t bytes_ = 0;
  Buffer memory_;  // on the CPU the loss scale alone
  struct Slot {
    PinnedBuffer memory;
    std::optional<Event> copied;
  };
  std::array<Slot, 2> slots_;
  size_t next_ = 0;
};

}  // namespace sluice
