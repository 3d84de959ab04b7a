// trainer/loop/batch_inputs.cpp -- one copy a micro-batch: loss scale, tokens, targets, documents.
#include "trainer/loop/batch_inputs.h"

#include <algorithm>
#include <cstring>

#include "kernels/tensor/fill.h"

namespace sluice {

static constexpr int64_t kAlign = 256;  // bytes

static int64_t padded(const Tensor& t) {
  return (t.bytes() + kAlign - 1) / kAlign * kAlign;
}

BatchInputs::BatchInputs(Device device) : device_(device) {
  if (device == Device::cpu) memory_ = Buffer(DType::f64, {1});
}

static int64_t bytes_of(const MicroBatch& b) {
  return kAlign + padded(b.tokens) + padded(b.targets) + padded(b.cu_seqlens);
}

// On the GPU from `at` on; null in a plan.
BatchInputs::View BatchInputs::lay_out(const MicroBatch& b, char* at) const {
  const auto place = [&](Tensor like) {
    like.device = Device::cuda;
    like.data = at;
    if (at) at += padded(like);
    return like;
  };
  View v;
  v.loss_scale = make_tensor(at, DType::f64, Device::cuda, {1});
  if (at) at += kAlign;
  v.tokens = place(b.tokens);
  v.targets = place(b.targets);
  v.cu_seqlens = place(b.cu_seqlens);
  v.longest = b.longest;
  return v;
}

BatchInputs::View BatchInputs::plan(const MicroBatch& shape) {
  if (device_ == Device::cpu)
    return {shape.tokens, shape.targets, shape.cu_seqlens, memory_.view(), shape.longest};
  bytes_ = std::max(bytes_, bytes_of(shape));
  return lay_out(shape, nullptr);
}

void BatchInputs::allocate() {
  if (device_ == Device::cpu || (memory_.view() && memory_.view().bytes() >= bytes_)) return;
  memory_ = Buffer(DType::u8, {bytes_}, device_);
  for (Slot& slot : slots_) {
    if (slot.copied) slot.copied->wait();
    slot.memory = PinnedBuffer(device_, bytes_);
    slot.copied.emplace(device_);
  }
}

BatchInputs::View BatchInputs::put(const Context& ctx, const MicroBatch& b, double loss_scale) {
  if (device_ == Device::cpu) {
    set_scalar(ctx, memory_.view(), loss_scale);
    return {b.tokens, b.targets, b.cu_seqlens, memory_.view(), b.longest};
  }
  const int64_t bytes = bytes_of(b);
  SLUICE_CHECK(memory_.view() && bytes <= memory_.view().bytes(), "a micro-batch of ", bytes,
               " bytes was not planned");
  Slot& slot = slots_[next_++ % slots_.size()];
  slot.copied->wait();
  char* at = static_cast<char*>(slot.memory.view().data);
  std::memcpy(at, &loss_scale, sizeof loss_scale);
  at += kAlign;
  for (const Tensor& t : {b.tokens, b.targets, b.cu_seqlens}) {
    std::memcpy(at, t.data, size_t(t.bytes()));
    at += padded(t);
  }
  copy_async(ctx, slot.memory.view().rows(0, bytes), memory_.view().rows(0, bytes));
  slot.copied->record(ctx);
  return lay_out(b, static_cast<char*>(memory_.view().data));
}

}  // namespace sluice
