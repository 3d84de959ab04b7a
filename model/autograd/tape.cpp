// model/autograd/tape.cpp -- the rules of tape.h.
#include "model/autograd/tape.h"

#include <algorithm>
#include <utility>

#include "kernels/add/add.h"
#include "kernels/base/trace.h"
#include "kernels/tensor/fill.h"
#include "model/autograd/op_times.h"

namespace sluice {

void Tape::time_into(OpTimes* times) {
  times_ = times;
  if (times_) times_->start();
}

int Tape::add_slot() {
  slots_.emplace_back();
  return int(slots_.size()) - 1;
}

Var Tape::make(DType dtype, std::initializer_list<int64_t> shape) {
  SLUICE_CHECK(ctx_.arena, "a tape needs a context with an arena");
  auto memory =
      std::make_shared<const ArenaTensor>(*ctx_.arena, dtype, shape, Purpose::activations);
  const Tensor value = memory->view();
  return {value, add_slot(), std::move(memory)};
}

Var Tape::input(const Tensor& value) {
  return {value, add_slot(), nullptr};
}

std::vector<Var> Tape::split(const Var& x, const std::vector<int64_t>& columns) {
  SLUICE_CHECK(slots_.at(size_t(x.id)).parts.empty() && slots_[size_t(x.id)].parent < 0,
               "the value was split before");
  SLUICE_CHECK(x.id >= recomputed_from_, block_,
               ": split of a value from outside, in a block that ", "is recomputed");
  std::vector<Var> parts;
  int64_t begin = 0;
  for (const int64_t count : columns) {
    const int id = add_slot();
    slots_[size_t(id)].parent = x.id;
    slots_[size_t(id)].begin = begin;
    slots_[size_t(id)].count = count;
    slots_[size_t(x.id)].parts.push_back(id);
    parts.push_back({x.value.columns(begin, count), id, x.memory});
    begin += count;
  }
  SLUICE_CHECK(begin == x.value.dim(1), "the parts have ", begin, " columns of ", x.value.dim(1));
  slots_[size_t(x.id)].like = x.value;
  return parts;
}

int Tape::owner(int id) const {
  const int parent = slots_.at(size_t(id)).parent;
  return parent < 0 ? id : parent;
}

Var Tape::keep(const Var& x) const {
  if (x.id < 0 || !slots_[size_t(owner(x.id))].again) return x;
  return {x.value, x.id, nullptr};
}

Tensor Tape::value(const Var& kept) {
  if (kept.id < 0 || kept.memory) return kept.value;
  const Slot& slot = slots_.at(size_t(kept.id));
  Slot& whole = slots_[size_t(owner(kept.id))];
  if (!whole.again) return kept.value;
  if (!whole.value.view()) {
    whole.value = ArenaTensor(*ctx_.arena, whole.like);
    whole.again(whole.value);
  }
  return slot.parent < 0 ? whole.value.view() : whole.value.view().columns(slot.begin, slot.count);
}

bool Tape::waits(const Var& kept) const {
  if (kept.id < 0 || kept.memory) return false;
  const Slot& slot = slots_.at(size_t(kept.id));
  return slot.parent < 0 && slot.again && slot.offered && !slot.value.view();
}

void Tape::when_made(const Var& kept, std::function<void(const Tensor&)> use) {
  if (!waits(kept)) return use(value(kept));
  slots_[size_t(kept.id)].waiting.emplace_back(op_, std::move(use));
}

Tensor Tape::wanted(int id) {
  Slot& slot = slots_.at(size_t(id));
  if (slot.waiting.empty() || slot.value.view()) return {};
  slot.value = ArenaTensor(*ctx_.arena, slot.like);
  return slot.value;
}

void Tape::run_waiting(int id) {
  Slot& slot = slots_[size_t(id)];
  SLUICE_CHECK(slot.waiting.empty() || slot.value.view(), "a backward did not write its output");
  for (const auto& [op, use] : slot.waiting) {
    use(slot.value);
    if (times_) times_->backward_done(op);
    if (Trace::on()) Trace::op_done(cat(op, " backward"));
  }
  slot.waiting.clear();
  slot.value.release();
}

void Tape::record(const char* name, const Var& output, std::function<void()> backward, Again again,
                  Offer offer) {
  const std::string label = block_.empty() ? name : block_ + ": " + name;
  if (nonfinite_) look_at(output.value, label + ": output");
  if (times_) times_->forward_done(name);
  if (Trace::on()) Trace::op_done(name);
  if (!recording_) return;
  steps_.push_back({label, name, output.id, std::move(backward)});
  if (!selective_ || !again) return;
  slots_[size_t(output.id)].again = std::move(again);
  slots_[size_t(output.id)].like = output.value;
  slots_[size_t(output.id)].offered = offer == Offer::in_backward;
}

void Tape::look_at(const Tensor& t, const std::string& what) {
  if (nonfinite_->looks >= 0) return;
  const std::string numbers = describe_nonfinite(ctx_, t);
  if (!numbers.empty()) *nonfinite_ = {looks_, what + " " + numbers};
  ++looks_;
}

Grad Tape::grad(int id, const Tensor& like) {
  Slot& slot = slots_.at(size_t(id));
  SLUICE_CHECK(slot.parts.empty(), "a value that was split has another consumer");
  touched_.push_back(id);
  const bool add = std::exchange(slot.written, true);
  if (slot.parent < 0) {
    if (!slot.memory)
      slot.memory = std::make_shared<ArenaTensor>(*ctx_.arena, like, Purpose::gradients);
    own_gradient(slot);
    return {slot.memory->view(), add};
  }
  Slot& whole = slots_[size_t(slot.parent)];
  if (!whole.memory)
    whole.memory = std::make_shared<ArenaTensor>(*ctx_.arena, whole.like, Purpose::gradients);
  return {whole.memory->view().columns(slot.begin, slot.count), add};
}

// What was passed on is written no more as long as another value has it. In a residual stream the
// other one, the branch's end, has gone backward by then.
void Tape::own_gradient(Slot& slot) {
  if (slot.memory.use_count() == 1) return;
  const Tensor shared = slot.memory->view();
  auto own = std::make_shared<ArenaTensor>(*ctx_.arena, shared, Purpose::gradients);
  zero(ctx_, own->view());
  add_forward(ctx_, {.a = shared, .b = own->view(), .y = own->view()});
  slot.memory = std::move(own);
}

void Tape::pass_on(int upstream, int input) {
  Slot& to = slots_.at(size_t(input));
  const Tensor dy = this->upstream(upstream);
  if (to.parent < 0 && to.parts.empty() && !to.written) {
    touched_.push_back(input);
    to.memory = slots_[size_t(upstream)].memory;
    to.written = true;
    return;
  }
  const Grad d = grad(input, dy);
  if (!d.add) zero(ctx_, d.t);
  add_forward(ctx_, {.a = dy, .b = d.t, .y = d.t});
}

Tensor Tape::upstream(int id) {
  Slot& slot = slots_.at(size_t(id));
  SLUICE_CHECK(slot.memory, "nothing consumed value ", id);
  for (const int part : slot.parts) {
    Slot& p = slots_[size_t(part)];
    if (!std::exchange(p.written, true)) zero(ctx_, slot.memory->view().columns(p.begin, p.count));
  }
  return slot.memory->view();
}

std::shared_ptr<const ArenaTensor> Tape::hold_upstream(int id) {
  (void)upstream(id);
  return slots_[size_t(id)].memory;
}

void Tape::acquire(const std::vector<int>& groups, Pass pass) {
  for (const int g : groups) params_.acquire(g, pass, ctx_);
}

void Tape::release(const std::vector<int>& groups, Pass pass) {
  for (auto g = groups.rbegin(); g != groups.rend(); ++g) params_.release(*g, pass, ctx_);
  if (pass == Pass::forward || !nonfinite_) return;
  params_.settle(ctx_);
  for (const Shard& shard : params_.trained_shards()) {
    const ParamSpec& spec = params_.spec(shard.id);
    if (std::find(groups.begin(), groups.end(), spec.group) != groups.end())
      look_at(shard.grad, spec.name + ": gradient");
  }
}

std::vector<Var> Tape::block(const std::string& name, std::vector<int> groups, Recompute recompute,
                             const Body& body) {
  const std::string outer = std::exchange(block_, name);
  const int first_id = int(slots_.size());
  const int outer_from = recomputed_from_;
  if (recompute == Recompute::block) recomputed_from_ = first_id;
  const bool record_inside = recording_ && recompute != Recompute::block;
  const bool outer_selective = std::exchange(selective_, recompute == Recompute::selective);
  const bool was_recording = std::exchange(recording_, record_inside);
  if (record_inside)
    steps_.push_back({name, "block", -1, [this, groups] { release(groups, Pass::backward); }});

  acquire(groups, Pass::forward);
  std::vector<Var> outputs;
  {
    const ProfileRange range(name.c_str());
    const TraceScope scope(name, TraceRow::blocks);
    outputs = body();
  }
  release(groups, Pass::forward);

  recording_ = was_recording;
  recomputed_from_ = outer_from;
  selective_ = outer_selective;
  if (record_inside) {
    for (const Var& v : outputs)
      SLUICE_CHECK(!slots_[size_t(owner(v.id))].again, name,
                   ": hands out a value that is made again");
    steps_.push_back({name, "block", -1, [this, groups] { acquire(groups, Pass::backward); }});
  } else if (recording_) {
    std::vector<int> ids;  // -1: handed through from outside, its gradient is not ours to move
    for (const Var& v : outputs) {
      ids.push_back(v.id >= first_id ? v.id : -1);
      SLUICE_CHECK(ids.back() < 0 || slots_[size_t(v.id)].parent < 0, name,
                   ": a recomputed block may not hand out a part of a split value");
    }
    steps_.push_back({name, "block", -1, [this, body, groups, ids, name] {
                        const std::string around = std::exchange(block_, name);
                        replay(body, groups, ids);
                        block_ = around;
                      }});
  }
  block_ = outer;
  return outputs;
}

void Tape::replay(const Body& body, const std::vector<int>& groups,
                  const std::vector<int>& outputs) {
  const size_t steps = steps_.size(), slots = slots_.size();
  acquire(groups, Pass::backward);
  recording_ = true;
  const bool nested = std::exchange(replaying_, true);
  const int outer_from = std::exchange(recomputed_from_, int(slots));
  std::vector<Var> again = body();
  recomputed_from_ = outer_from;
  replaying_ = nested;
  SLUICE_CHECK(again.size() == outputs.size(), "block ", block_, " made ", again.size(),
               " outputs, the first time ", outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] < 0 || !has_gradient(outputs[i])) continue;
    Slot& from = slots_[size_t(outputs[i])];
    Slot& to = slots_[size_t(again[i].id)];
    to.memory = std::move(from.memory);
    to.written = true;
  }
  again.clear();
  run_back_to(steps);
  release(groups, Pass::backward);
  slots_.resize(slots);
}

void Tape::run_back_to(size_t steps) {
  while (steps_.size() > steps) {
    const Step step = std::move(steps_.back());
    steps_.pop_back();
    if (step.output >= 0) {
      Slot& made = slots_[size_t(step.output)];
      if (made.waiting.empty()) made.value.release();
      made.again = {};
      if (!has_gradient(step.output)) continue;  // the loss does not depend on it
    }
    touched_.clear();
    op_ = step.op;
    step.backward();
    if (times_) times_->backward_done(step.op);
    if (Trace::on()) Trace::op_done(cat(step.op, " backward"));
    if (step.output >= 0) run_waiting(step.output);
    if (nonfinite_ && step.output >= 0)
      for (const int id : touched_)
        if (has_gradient(id))
          look_at(*slots_[size_t(id)].memory, step.name + ": gradient of an input");
    if (step.output < 0) continue;
    Slot& slot = slots_[size_t(step.output)];
    slot.memory.reset();
    slot.written = false;
  }
}

void Tape::backward(const Var& loss) {
  SLUICE_CHECK(recording_, "this tape recorded nothing");
  check_shape(loss.value, "loss", {1}, DType::f64, ctx_.device);
  loss_ = loss.id;
  set_scalar(ctx_, grad(loss).t, 1);
  run_back_to(0);
}

}  // namespace sluice
