// kernels/comm/comm_staging.h -- a collective on copies of its tensors, for a back end that cannot
// reach them where they are.
#pragma once

#include <functional>
#include <memory>

#include "kernels/comm/comm.h"
#include "kernels/device/pinned.h"
#include "kernels/device/stream.h"
#include "kernels/tensor/buffer.h"

namespace sluice {

class CommStaging {
 public:
  explicit CommStaging(Device place);  // where copies are made: pinned memory of the host, or a GPU

  // execute(call) with its tensors at the place; returns when what it got is back.
  void run(const CommCall& call, const std::function<void(const CommCall&)>& execute);

 private:
  Tensor copy_of(const Tensor& t, int which);  // its memory; nothing is copied yet

  const Device place_;
  std::unique_ptr<Stream> stream_;  // of copies to a GPU: host tensors have none
  PinnedBuffer pinned_[2];          // what is given and what is got; they grow
  Buffer device_[2];
};

}  // namespace sluice
