// trainer/parallel/sharded_store.h -- parameters cut over the ranks of a mesh: FSDP, HSDP, and
// experts of which each rank has some.
//
// Each rank has its part of every segment (layout.h): masters, gradients, moments. acquire()
// gathers a group whole and asks for the next one, which arrives while this one is computed with;
// the whole is overwritten by a later group. The release of a backward pass has the whole gradients
// summed over the ranks, f32 and in rank order, and the rank's part of that added to its shard; so
// every micro-batch is reduced, beside the backward of the next group. finish_gradients() sums the
// shards over the replicas.
//
// A segment that is not cut, as experts of whom each rank has others, is used where it lies.
#pragma once

#include <memory>

#include "model/autograd/group_holds.h"
#include "trainer/parallel/acquire_order.h"
#include "trainer/parallel/group_slots.h"
#include "trainer/parallel/layout.h"

namespace sluice {

class ShardedStore : public ParamStore {
 public:
  struct Options {
    DType dtype = DType::f32;  // of masters; values are bf16 on CUDA
    Device device = Device::cpu;
    bool reshard_after_forward = true;  // as in ParallelConfig
    bool unsharded_gradients = false;
    int held_at_once = 1;  // groups that one block acquires: 2 if the head is the embedding
    // For tests, on the CPU: what is released is filled with NaN. Nothing is found there again.
    bool poison = false;
  };

  // A planned mesh is for plan(). allocate() is called by all ranks at the same time.
  ShardedStore(const Mesh& mesh, const Options& options) : mesh_(mesh), options_(options) {}
  ~ShardedStore() override;

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
  void settle(const Context& ctx) override;
  const std::vector<Shard>& shards() const override { return shards_; }

  const ShardLayout& layout() const { return layout_; }

 private:
  using Slot = GroupSlots::Slot;

  DType value_dtype(const Segment& s) const;
  Tensor part(const Buffer& shards, const Segment& s) const;  // this rank's
  Tensor whole_gradient(const Slot& slot, const Segment& s) const;
  Tensor of_place(const Tensor& segment, ParamId id) const;  // with the shape on this rank
  Comm& ranks_of(const Segment& s) const;
  bool written_anew(const Segment& s) const;  // in each micro-batch

  Slot* gather(int group, const Context& ctx);
  void open_gradients(int group, const Context& ctx);
  void reduce(int group, const Context& ctx);
  void reduce_segments(int group, const Slot& slot, bool first, const CommUse& use) const;
  void zero_unwritten(const Segment& s, const Tensor& whole, const Context& ctx) const;
  void poison_values(int group);

  const Mesh& mesh_;
  const Options options_;
  ShardLayout layout_;
  std::vector<std::string> names_;   // of segments, for collectives
  std::vector<Shard> shards_;        // by ParamId::index
  Buffer masters_, grads_, copies_;  // of this rank's parts; copies_: bf16, on CUDA only
  Buffer sum_;                       // of a segment's part, before it is added
  GroupSlots values_, gradients_;    // whole
  AcquireOrder order_;
  GroupHolds holds_;
  bool planning_ = false;      // the pass that is under way
  std::vector<bool> written_;  // by ParamId::index: the gradient has a first part
  std::vector<bool> open_;     // by group: its gradients are being written
  std::vector<bool> reduced_;  // by group: in this step
  std::unique_ptr<Comm> weights_ranks_, expert_ranks_;  // the queue's own
  std::unique_ptr<CommQueue> queue_;                    // before what it uses goes
  std::optional<CommQueue::Ticket> last_;               // what was submitted last
};

}  // namespace sluice
