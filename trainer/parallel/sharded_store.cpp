// trainer/parallel/sharded_store.cpp -- where everything lies.
#include "trainer/parallel/sharded_store.h"

#include <algorithm>

#include "kernels/cast/cast.h"
#include "model/autograd/plain_store.h"

namespace sluice {

ShardedStore::~ShardedStore() = default;

DType ShardedStore::value_dtype(const Segment& s) const {
  const bool rounded = options_.device == Device::cuda && s.kind != Segment::Kind::wide;
  return rounded ? DType::bf16 : options_.dtype;
}

void ShardedStore::plan() {
  SLUICE_CHECK(shards_.empty(), "plan() or allocate() is called once");
  SLUICE_CHECK(!options_.poison || options_.device == Device::cpu, "poison is for the CPU");
  const DType copy = options_.device == Device::cuda ? DType::bf16 : options_.dtype;
  layout_ = ShardLayout(*this, mesh_, options_.dtype, copy);
  const int turns = options_.held_at_once + 1;
  values_.plan(layout_.gathered, options_.reshard_after_forward ? turns : 0);
  gradients_.plan(layout_.gradients, options_.unsharded_gradients ? 0 : turns);
  for (const Segment& s : layout_.segments)
    names_.push_back(group_name(s.group) + (s.kind == Segment::Kind::expert ? " experts"
                                            : s.kind == Segment::Kind::wide ? " wide"
                                                                            : " weights"));
  for (int i = 0; i < size(); ++i) {
    const ShardLayout::Place& p = layout_.places[size_t(i)];
    const ShardLayout::Range r = layout_.owned({i});
    const Tensor flat = make_tensor(nullptr, options_.dtype, options_.device, {r.count});
    Shard& shard = shards_.emplace_back(Shard{.id = {i},
                                              .begin = p.first + (r.count ? r.begin - p.begin : 0),
                                              .master = flat,
                                              .grad = {}});
    if (spec({i}).rule == UpdateRule::gradient) shard.grad = flat;
    if (options_.device == Device::cuda && !spec({i}).wide)
      shard.copy = make_tensor(nullptr, DType::bf16, options_.device, {r.count});
  }
  written_.assign(size_t(size()), false);
  open_.assign(size_t(groups()), false);
  reduced_.assign(size_t(groups()), false);
  holds_.start(*this);
}

void ShardedStore::allocate() {
  plan();
  masters_ = Buffer(options_.dtype, {layout_.elements}, options_.device);
  grads_ = Buffer(options_.dtype, {layout_.elements}, options_.device);
  if (options_.device == Device::cuda)
    copies_ = Buffer(DType::bf16, {layout_.elements}, options_.device);
  if (bytes().unsharded > gradients_.bytes())
    sum_ = Buffer(options_.dtype, {layout_.largest_part}, options_.device);
  values_.allocate(options_.device);
  gradients_.allocate(options_.device);
  for (Shard& s : shards_) {
    const Segment& segment = layout_.segments[size_t(layout_.places[size_t(s.id.index)].segment)];
    const ShardLayout::Range r = layout_.owned(s.id);
    const auto own = [&](const Buffer& b) {
      return part(b, segment).rows(r.begin - segment.rank * segment.part, r.count);
    };
    s.master = own(masters_);
    if (s.grad) s.grad = own(grads_);
    if (s.copy) s.copy = own(copies_);
  }
  weights_ranks_ = mesh_.replica().split(0, int(mesh_.replica_rank()), {.what = "weights"});
  expert_ranks_ = mesh_.expert_data().split(0, int(mesh_.expert_data_rank()), {.what = "experts"});
  queue_ = std::make_unique<CommQueue>(*weights_ranks_, options_.device);
}

StoreBytes ShardedStore::bytes() const {
  const int64_t n = layout_.elements, each = n * size_of(options_.dtype);
  const int64_t sum =
      options_.unsharded_gradients ? 0 : layout_.largest_part * size_of(options_.dtype);
  return {.masters = each,
          .gradients = each,
          .copies = options_.device == Device::cuda ? n * size_of(DType::bf16) : 0,
          .gathered = values_.bytes(),
          .unsharded = gradients_.bytes() + sum};
}

Comm& ShardedStore::ranks_of(const Segment& s) const {
  return s.kind == Segment::Kind::expert ? *expert_ranks_ : *weights_ranks_;
}

Tensor ShardedStore::part(const Buffer& shards, const Segment& s) const {
  return shards.view().rows(s.at, s.part);
}

Tensor ShardedStore::whole_gradient(const Slot& slot, const Segment& s) const {
  return gradients_.part(slot, s.gradient, options_.dtype, s.whole());
}

Tensor ShardedStore::of_place(const Tensor& segment, ParamId id) const {
  const ShardLayout::Place& p = layout_.places[size_t(id.index)];
  return with_shape(segment.rows(p.begin, p.numel), p.shape);
}

Tensor ShardedStore::value(ParamId id) {
  holds_.check_value(spec(id));
  const Segment& s = layout_.segments[size_t(layout_.places.at(size_t(id.index)).segment)];
  const DType dtype = value_dtype(s);
  if (!s.cut()) return of_place(part(dtype == DType::bf16 ? copies_ : masters_, s), id);
  if (planning_) return of_place(make_tensor(nullptr, dtype, options_.device, {s.whole()}), id);
  return of_place(values_.part(*values_.find(s.group), s.gathered, dtype, s.whole()), id);
}

Grad ShardedStore::grad(ParamId id) {
  holds_.check_grad(spec(id));
  const Segment& s = layout_.segments[size_t(layout_.places.at(size_t(id.index)).segment)];
  const bool add = written_[size_t(id.index)];
  written_[size_t(id.index)] = true;
  if (!s.cut()) return {of_place(part(grads_, s), id), add};
  if (planning_)
    return {of_place(make_tensor(nullptr, options_.dtype, options_.device, {s.whole()}), id), add};
  return {of_place(whole_gradient(*gradients_.find(s.group), s), id), add};
}

void ShardedStore::refresh(const Context& ctx) {
  values_.forget();
  if (options_.device == Device::cuda) cast(ctx, {.from = masters_.view(), .to = copies_.view()});
}

}  // namespace sluice
