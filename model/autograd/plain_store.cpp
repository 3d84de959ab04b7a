// model/autograd/plain_store.cpp -- flat buffers, with views by parameter.
#include "model/autograd/plain_store.h"

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

void PlainStore::allocate() {
  SLUICE_CHECK(shards_.empty(), "allocate() is called once");
  values_ = Buffer(dtype_, {numel()}, device_);
  grads_ = Buffer(dtype_, {numel()}, device_);
  int64_t begin = 0;
  for (int i = 0; i < size(); ++i) {
    const int64_t n = spec({i}).numel();
    const bool trained = spec({i}).rule == UpdateRule::gradient;
    shards_.push_back({.id = {i},
                       .begin = 0,
                       .master = values_.view().rows(begin, n),
                       .grad = trained ? grads_.view().rows(begin, n) : Tensor{}});
    begin += n;
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
  return with_shape(shards_.at(size_t(id.index)).master, s.shape);
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
