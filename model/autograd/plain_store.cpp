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

static constexpr int64_t kAlign = 128;  // elements: 256 bytes of the narrowest type

void PlainStore::allocate() {
  SLUICE_CHECK(shards_.empty(), "allocate() is called once");
  begin_.assign(1, 0);
  for (int i = 0; i < size(); ++i)
    begin_.push_back(begin_.back() + (spec({i}).numel() + kAlign - 1) / kAlign * kAlign);
  values_ = Buffer(dtype_, {begin_.back()}, device_);
  grads_ = Buffer(dtype_, {begin_.back()}, device_);
  if (device_ == Device::cuda) copies_ = Buffer(DType::bf16, {begin_.back()}, device_);
  for (int i = 0; i < size(); ++i) {
    const int64_t n = spec({i}).numel(), begin = begin_[size_t(i)];
    const bool trained = spec({i}).rule == UpdateRule::gradient;
    shards_.push_back({.id = {i},
                       .begin = 0,
                       .master = values_.view().rows(begin, n),
                       .grad = trained ? grads_.view().rows(begin, n) : Tensor{}});
  }
  written_.assign(size_t(size()), false);
  acquired_.assign(size_t(groups()), 0);
  in_backward_.assign(size_t(groups()), 0);
}

void PlainStore::acquire(int group, Pass pass) {
  ++acquired_.at(size_t(group));
  in_backward_.at(size_t(group)) += pass == Pass::backward;
}

void PlainStore::release(int group, Pass pass) {
  SLUICE_CHECK(acquired_.at(size_t(group)) > 0, "group ", group_name(group), " is not acquired");
  --acquired_[size_t(group)];
  in_backward_.at(size_t(group)) -= pass == Pass::backward;
}

Tensor PlainStore::value(ParamId id) {
  const ParamSpec& s = spec(id);
  SLUICE_CHECK(acquired_.at(size_t(s.group)) > 0, s.name, " is used outside its block ",
               group_name(s.group));
  const Shard& shard = shards_.at(size_t(id.index));
  if (device_ == Device::cpu || s.wide) return with_shape(shard.master, s.shape);
  return with_shape(copies_.view().rows(begin_[size_t(id.index)], s.numel()), s.shape);
}

// All in one go, the wide ones too, whose copies nobody asks for.
void PlainStore::refresh(const Context& ctx) {
  if (device_ == Device::cuda) cast(ctx, {.from = values_.view(), .to = copies_.view()});
}

Grad PlainStore::grad(ParamId id) {
  const ParamSpec& s = spec(id);
  SLUICE_CHECK(in_backward_.at(size_t(s.group)) > 0, "gradient of ", s.name,
               " is used outside its block's backward pass");
  SLUICE_CHECK(s.rule == UpdateRule::gradient, s.name, " has no gradient");
  const bool add = written_.at(size_t(id.index));
  written_[size_t(id.index)] = true;
  return {with_shape(shards_.at(size_t(id.index)).grad, s.shape), add};
}

void PlainStore::start_step() {
  written_.assign(written_.size(), false);
}

void PlainStore::finish_gradients() {
  for (size_t i = 0; i < written_.size(); ++i)
    if (!written_[i] && shards_[i].grad) zero({.device = device_}, shards_[i].grad);
}

}  // namespace sluice
