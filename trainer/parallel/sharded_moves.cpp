// trainer/parallel/sharded_moves.cpp -- what moves between ranks, and when.
#include <cstring>

#include "kernels/add/add.h"
#include "kernels/tensor/fill.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice {

static void fill_with_nan(const Tensor& t) {
  std::memset(t.data, 0xff, size_t(t.bytes()));
}

void ShardedStore::acquire(int group, Pass pass, const Context& ctx) {
  const bool first = !holds_.any(group);
  holds_.acquire(group, pass);
  planning_ = ctx.mode == Mode::plan;
  if (first && !planning_) {
    Slot* const slot = gather(group, ctx);
    const int next = order_.next(group, pass);
    if (next >= 0) gather(next, ctx);
    if (slot && slot->ticket) queue_->wait(*slot->ticket, ctx);
    if (slot) slot->ticket.reset();
  }
  if (pass == Pass::backward && !open_[size_t(group)]) open_gradients(group, ctx);
}

// A group that is still held goes backward later: the head's weight gradient is made in the forward
// pass. Its gradients wait for that.
void ShardedStore::release(int group, Pass pass, const Context& ctx) {
  holds_.release(group, pass);
  if (holds_.any(group)) return;
  if (pass == Pass::backward && !options_.unsharded_gradients) {
    if (!planning_) reduce(group, ctx);
    open_[size_t(group)] = false;
  }
  if (options_.poison && !planning_) poison_values(group);
}

// Queues what brings the group, if it is not there or on its way. Null: it is used where it lies,
// or (of the next one) there is no room yet.
ShardedStore::Slot* ShardedStore::gather(int group, const Context& ctx) {
  if (layout_.gathered[size_t(group)] == 0) return nullptr;
  if (Slot* there = values_.find(group)) return there;
  Slot* const slot = values_.take(group, [&](int other) { return !holds_.any(other); });
  SLUICE_CHECK(slot || !holds_.any(group), group_name(group),
               ": more groups are held at once than ", options_.held_at_once);
  if (!slot) return nullptr;
  slot->ticket = last_ = queue_->submit(
      group_name(group) + " gather", ctx, [this, group, at = *slot](const CommUse& use) {
        for (const int i : layout_.groups[size_t(group)]) {
          const Segment& s = layout_.segments[size_t(i)];
          if (!s.cut()) continue;
          const DType dtype = value_dtype(s);
          ranks_of(s).all_gather(part(dtype == DType::bf16 ? copies_ : masters_, s),
                                 values_.part(at, s.gathered, dtype, s.whole()),
                                 {.what = names_[size_t(i)], .stream = use.stream});
        }
      });
  return slot;
}

bool ShardedStore::written_anew(const Segment& s) const {
  return s.cut() && !options_.unsharded_gradients;
}

void ShardedStore::open_gradients(int group, const Context& ctx) {
  open_[size_t(group)] = true;
  for (const int i : layout_.groups[size_t(group)])
    if (const Segment& s = layout_.segments[size_t(i)]; written_anew(s))
      for (const ParamId id : s.params) written_[size_t(id.index)] = false;
  if (planning_ || layout_.gradients[size_t(group)] == 0) return;
  Slot* const slot = gradients_.take(group, [](int) { return false; });
  SLUICE_CHECK(slot, group_name(group), ": more groups go backward at once than ",
               options_.held_at_once);
  if (slot->ticket) queue_->wait(*slot->ticket, ctx);  // of the group that was in it
  slot->ticket.reset();
}

void ShardedStore::zero_unwritten(const Segment& s, const Tensor& whole, const Context& ctx) const {
  for (const ParamId id : s.params)
    if (!written_[size_t(id.index)] && spec(id).rule == UpdateRule::gradient)
      zero({.device = options_.device, .stream = ctx.stream}, of_place(whole, id));
}

void ShardedStore::reduce(int group, const Context& ctx) {
  if (layout_.gradients[size_t(group)] == 0) return;
  Slot* const slot = gradients_.find(group);
  for (const int i : layout_.groups[size_t(group)])
    if (const Segment& s = layout_.segments[size_t(i)]; s.cut())
      zero_unwritten(s, whole_gradient(*slot, s), ctx);
  const bool first = !reduced_[size_t(group)];
  reduced_[size_t(group)] = true;
  slot->ticket = last_ = queue_->submit(group_name(group) + " reduce", ctx,
                                        [this, group, at = *slot, first](const CommUse& use) {
                                          reduce_segments(group, at, first, use);
                                        });
  slot->group = -1;
}

void ShardedStore::reduce_segments(int group, const Slot& slot, bool first,
                                   const CommUse& use) const {
  for (const int i : layout_.groups[size_t(group)]) {
    const Segment& s = layout_.segments[size_t(i)];
    if (!s.cut()) continue;
    const CommUse named{.what = names_[size_t(i)], .stream = use.stream};
    const Tensor whole = whole_gradient(slot, s), mine = part(grads_, s);
    if (first) {
      ranks_of(s).reduce_scatter(whole, mine, named);
    } else {
      const Tensor sum = sum_.view().rows(0, s.part);
      ranks_of(s).reduce_scatter(whole, sum, named);
      add_forward({.device = options_.device, .stream = use.stream},
                  {.a = mine, .b = sum, .y = mine});
    }
    if (options_.poison) fill_with_nan(whole);
  }
}

void ShardedStore::start_step() {
  written_.assign(written_.size(), false);
  open_.assign(open_.size(), false);
  reduced_.assign(reduced_.size(), false);
  gradients_.forget();
}

void ShardedStore::settle(const Context& ctx) {
  if (last_) queue_->wait(*last_, ctx);
  last_.reset();
}

// After this the optimizer writes masters, so nothing may still read them, and what was gathered is
// of the past.
void ShardedStore::finish_gradients(const Context& ctx) {
  for (int g = 0; g < groups(); ++g) {
    if (open_[size_t(g)]) reduce(g, ctx);
    open_[size_t(g)] = false;
  }
  for (const Segment& s : layout_.segments)
    if (!s.cut() || !reduced_[size_t(s.group)])
      for (const ParamId id : s.params)
        if (const Shard& shard = shards_[size_t(id.index)]; shard.grad)
          if (s.cut() || !written_[size_t(id.index)])
            zero({.device = options_.device, .stream = ctx.stream}, shard.grad);
  if (mesh_.shape().replicate > 1)
    last_ = queue_->submit("gradients over replicas", ctx, [this](const CommUse& use) {
      mesh_.replicate().all_reduce_sum(grads_.view(), {.what = "gradients", .stream = use.stream});
    });
  settle(ctx);
  values_.forget();
}

void ShardedStore::poison_values(int group) {
  Slot* const slot = values_.find(group);
  if (!slot) return;
  for (const int i : layout_.groups[size_t(group)])
    if (const Segment& s = layout_.segments[size_t(i)]; s.cut())
      fill_with_nan(values_.part(*slot, s.gathered, value_dtype(s), s.whole()));
  slot->group = -1;
}

}  // namespace sluice
