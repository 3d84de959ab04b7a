// model/autograd/plain_store.cpp -- flat buffers, with views by parameter.
#include "model/autograd/plain_store.h"

#include "kernels/cast/cast.h"
#include "kernels/tensor/fill.h"

namespace sluice {

Tensor with_shape(const Tensor& flat, const std::vector<int64_t>& shape) {
  switch (shape.size()) {
    case 1: return flat.reshape({shape[0]});
    case 2: return flat.reshape({shape[0], shape[1]});
    case 3: return flat.reshape({shape[0], shape[1], shape[2]});
    default: SLUICE_CHECK(false, "parameters of rank ", shape.size()); return {};
  }
}

void PlainStore::plan() {
  SLUICE_CHECK(shards_.empty(), "plan() or allocate() is called once");
  begin_.assign(1, 0);
  const bool trains = purpose_ == Purpose::training;
  for (int i = 0; i < size(); ++i) {
    const ParamSpec& s = spec({i});
    begin_.push_back(begin_.back() + aligned_shard(s.numel()));
    const Tensor flat = make_tensor(nullptr, dtype_, device_, {s.numel()});
    Shard& shard = shards_.emplace_back(Shard{.id = {i}, .begin = 0, .master = flat, .grad = {}});
    if (trains && s.rule == UpdateRule::gradient) shard.grad = flat;
    if (device_ == Device::cuda && !s.wide)
      shard.copy = make_tensor(nullptr, DType::bf16, device_, {s.numel()});
  }
  written_.assign(size_t(size()), false);
  holds_.start(*this);
}

void PlainStore::allocate() {
  plan();
  values_ = Buffer(dtype_, {begin_.back()}, device_);
  if (purpose_ == Purpose::training) grads_ = Buffer(dtype_, {begin_.back()}, device_);
  if (device_ == Device::cuda) copies_ = Buffer(DType::bf16, {begin_.back()}, device_);
  for (size_t i = 0; i < shards_.size(); ++i) {
    Shard& s = shards_[i];
    const auto part = [&](const Buffer& b) { return b.view().rows(begin_[i], s.master.dim(0)); };
    s.master = part(values_);
    if (s.grad) s.grad = part(grads_);
    if (s.copy) s.copy = part(copies_);
  }
}

StoreBytes PlainStore::bytes() const {
  const int64_t n = begin_.back(), each = n * size_of(dtype_);
  return {.masters = each,
          .gradients = purpose_ == Purpose::training ? each : 0,
          .copies = device_ == Device::cuda ? n * size_of(DType::bf16) : 0};
}

void PlainStore::acquire(int group, Pass pass, const Context&) {
  holds_.acquire(group, pass);
}

void PlainStore::release(int group, Pass pass, const Context&) {
  holds_.release(group, pass);
}

Tensor PlainStore::value(ParamId id) {
  const ParamSpec& s = spec(id);
  holds_.check_value(s);
  const Shard& shard = shards_.at(size_t(id.index));
  return with_shape(shard.copy ? shard.copy : shard.master, s.shape);
}

// All in one go, the wide ones too, whose copies nobody asks for.
void PlainStore::refresh(const Context& ctx) {
  if (device_ == Device::cuda) cast(ctx, {.from = values_.view(), .to = copies_.view()});
}

Grad PlainStore::grad(ParamId id) {
  const ParamSpec& s = spec(id);
  holds_.check_grad(s);
  SLUICE_CHECK(purpose_ == Purpose::training, s.name, " has no gradient: inference");
  const bool add = written_.at(size_t(id.index));
  written_[size_t(id.index)] = true;
  return {with_shape(shards_.at(size_t(id.index)).grad, s.shape), add};
}

void PlainStore::start_step() {
  written_.assign(written_.size(), false);
}

void PlainStore::finish_gradients(const Context& ctx) {
  for (size_t i = 0; i < written_.size(); ++i)
    if (!written_[i] && shards_[i].grad)
      zero({.device = device_, .stream = ctx.stream}, shards_[i].grad);
}

}  // namespace sluice
