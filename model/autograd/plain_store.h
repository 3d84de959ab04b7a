// model/autograd/plain_store.h -- all parameters whole, on one device: the store of one rank.
#pragma once

#include "kernels/tensor/buffer.h"
#include "model/autograd/param_store.h"

namespace sluice {

// One flat buffer of values and one of gradients; a shard is a whole parameter, and starts on 256
// bytes. On CUDA values are f32 masters, and there is a bf16 copy of those that are not wide, which
// is what value() gives. acquire() and release() move nothing, but a value asked for outside its
// block is refused here as well, so that code which works on one rank works on many.
class PlainStore : public ParamStore {
 public:
  enum class Purpose : uint8_t { training, inference };  // inference: there are no gradients
  explicit PlainStore(DType dtype, Device device = Device::cpu, Purpose purpose = Purpose::training)
      : dtype_(dtype), device_(device), purpose_(purpose) {}

  // Sizes alone: shards exist, their memory does not.
  void plan();
  void allocate() override;
  // Of the three buffers, padding between shards included; also when only planned.
  struct Bytes {
    int64_t masters, gradients, copies;
  };
  Bytes bytes() const;
  void acquire(int group, Pass pass) override;
  void release(int group, Pass pass) override;
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
  std::vector<int> acquired_;       // by group: how often, forward and backward
  std::vector<int> in_backward_;    // by group: of those, backward
};

// A view of `flat` [numel] with the shape of the spec.
Tensor with_shape(const Tensor& flat, const std::vector<int64_t>& shape);

}  // namespace sluice
