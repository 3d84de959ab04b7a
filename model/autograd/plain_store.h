// model/autograd/plain_store.h -- all parameters whole, on one device: the store of one rank.
#pragma once

#include "kernels/tensor/buffer.h"
#include "model/autograd/group_holds.h"
#include "model/autograd/param_store.h"

namespace sluice {

// One flat buffer of values and one of gradients; a shard is a whole parameter, and starts on 256
// bytes. On CUDA values are f32 masters, and there is a bf16 copy of those that are not wide, which
// is what value() gives. acquire() and release() move nothing.
class PlainStore : public ParamStore {
 public:
  enum class Purpose : uint8_t { training, inference };  // inference: there are no gradients
  explicit PlainStore(DType dtype, Device device = Device::cpu, Purpose purpose = Purpose::training)
      : dtype_(dtype), device_(device), purpose_(purpose) {}

  void plan() override;
  void allocate() override;
  StoreBytes bytes() const override;
  void acquire(int group, Pass pass, const Context& ctx = {}) override;
  void release(int group, Pass pass, const Context& ctx = {}) override;
  Tensor value(ParamId id) override;
  Grad grad(ParamId id) override;
  void refresh(const Context& ctx) override;
  void start_step() override;
  void finish_gradients(const Context& ctx = {}) override;
  const std::vector<Shard>& shards() const override { return shards_; }

 private:
  DType dtype_;
  Device device_;
  Purpose purpose_;
  Buffer values_, grads_, copies_;  // copies_: bf16, on CUDA only
  std::vector<Shard> shards_;       // by ParamId::index
  std::vector<int64_t> begin_;      // of a shard in the buffers; and their length
  std::vector<bool> written_;       // by ParamId::index: the gradient of this step has a first part
  GroupHolds holds_;
};

// Shards begin on this many elements: 256 bytes of the narrowest type.
constexpr int64_t kShardAlign = 128;
constexpr int64_t aligned_shard(int64_t elements) {
  return (elements + kShardAlign - 1) / kShardAlign * kShardAlign;
}

// A view of `flat` [numel] with the shape of the spec.
Tensor with_shape(const Tensor& flat, const std::vector<int64_t>& shape);

}  // namespace sluice
