// model/autograd/tape.h -- reverse-mode differentiation as a list of closures, run last to first.
//
// Program order is already a topological order, so there is no graph and no sort. Ops are plain
// forward/backward function pairs (kernels/*) that are tested without a tape;
// model/autograd/*_op(s) puts them on it.
//
// Gradients: every op produces Grads. The first one for a value in the backward pass is written,
// later ones are added, so a value may have any number of consumers and nothing is zero-filled. A
// gradient exists from its first producer until the closure of the op that made the value has run.
//
// Values: memory lives as long as a Var or a closure holds it. A closure captures just what its
// backward reads, so the capture list is the list of what is kept; what no backward needs is given
// back during the forward pass. All of it comes from the context's arena.
//
// In a block with Recompute::selective values that are cheap to make again are not kept: their ops
// record how (`again`), consumers capture keep(x), and the first backward that asks for value(x)
// makes it. It lives until the backward of its maker, in which nothing reads it any more.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor/context.h"
#include "model/autograd/param_store.h"

namespace sluice {

class LayerProbe;     // layer_probe.h
class OpTimes;        // op_times.h
class RouterChoices;  // moe_ops.h
class StepStats;      // step_stats.h

// The first of a pass's values that is not finite.
struct NonfiniteFinding {
  int64_t looks =
      -1;            // at others before it, so that those of several ranks have an order; -1: none
  std::string what;  // the op (or the parameter), its block, and the numbers
};

// A value on the tape, and the handle of its gradient. Cheap to copy.
struct Var {
  Tensor value;
  int id = -1;
  // Shared, because its last holder is whichever closure runs last. Null for a tape's inputs.
  std::shared_ptr<const ArenaTensor> memory;
};

enum class Recompute : uint8_t { none, selective, block };

class Tape {
 public:
  enum class Mode { train, infer };  // infer records nothing

  Tape(const Context& ctx, ParamStore& params, Mode mode)
      : ctx_(ctx), params_(params), recording_(mode == Mode::train) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  const Context& ctx() const { return ctx_; }
  ParamStore& params() { return params_; }
  bool recording() const { return recording_; }  // will a backward pass follow?
  bool replaying() const { return replaying_; }  // the second run of a recomputed block?

  // Where ops count what a step wants to know; null (the default): nowhere. stats() is null as well
  // while replaying(), so that everything is counted once a token.
  void count_into(StepStats* stats) { stats_ = stats; }
  StepStats* stats() const { return replaying_ ? nullptr : stats_; }
  // Where recurrences leave figures for people; null (the default): nowhere. In plan mode only
  // whether there is one matters.
  void probe_into(LayerProbe* probe) { probe_ = probe; }
  LayerProbe* probe() const { return replaying_ ? nullptr : probe_; }
  // Null (the default): nobody looks at a clock.
  void time_into(OpTimes* times);
  // Routers choose what the first pass with the same `choices` chose, which keeps it there.
  void replay_choices(RouterChoices* choices) { choices_ = choices; }
  RouterChoices* choices() const { return choices_; }

  Var make(DType dtype, std::initializer_list<int64_t> shape);
  Var input(const Tensor& value);  // memory of the caller's

  // Views of consecutive column ranges of x [N, C]; their gradients are ranges of x's. A value that
  // was split has no other consumer. A range that nothing consumes has gradient zero. A recomputed
  // block may split values of its own only, and not hand out a range.
  std::vector<Var> split(const Var& x, const std::vector<int64_t>& columns);

  // What an op does after its forward. The closure holds Tensors and Vars that its backward reads,
  // ids and ParamIds; never the memory of a parameter or of a gradient, which move. `again` writes
  // the output once more, to the bit; an op gives it if that costs little beside a product. An op
  // whose backward passes by all that makes the output writes it there too, where wanted() says.
  using Again = std::function<void(const Tensor& output)>;
  enum class Offer : uint8_t { again_only, in_backward };
  void record(const char* name, const Var& output, std::function<void()> backward, Again again = {},
              Offer offer = Offer::again_only);

  // What a closure captures of a value, and the value of that in backward.
  Var keep(const Var& x) const;
  Tensor value(const Var& kept);
  // For what no other backward waits for, as the gradient of a weight. If waits(x), `use` gets the
  // value when the backward of its maker, who offers that, has written it; no pass is made for it.
  // Else at once.
  bool waits(const Var& kept) const;
  void when_made(const Var& kept, std::function<void(const Tensor&)> use);
  Tensor wanted(int id);  // for the maker: memory for its output, or none
  // Will the ops of this block make their values again?
  bool selective() const { return selective_ && recording_; }

  Grad grad(int id, const Tensor& like);  // for an op that produces the gradient of this value
  Grad grad(const Var& v) { return grad(v.id, v.value); }
  Tensor upstream(int id);  // for the op that made this value: its gradient, complete
  std::shared_ptr<const ArenaTensor> hold_upstream(int id);  // that, for longer than the closure
  // For an op whose gradient of `input` is its upstream gradient itself: no copy, both have one
  // memory until something is added to one of them.
  void pass_on(int upstream, int input);

  // Runs `body` with the parameter groups acquired, and again around its backward. With
  // Recompute::selective it may not hand out a value that is made again. With Recompute::block
  // nothing of it is kept but its outputs and what it captured, and it is run once more before its
  // backward; it may read any earlier value, which then gets its gradient as usual.
  using Body = std::function<std::vector<Var>()>;
  std::vector<Var> block(const std::string& name, std::vector<int> groups, Recompute recompute,
                         const Body& body);

  void backward(const Var& loss);  // d(loss) = 1; loss [1] f64. The tape is empty afterwards.
  bool is_loss(int id) const { return id == loss_; }  // what backward() was called for?

  // Looks at every op's output and the gradients of its inputs as they are made, and those of a
  // block's parameters when it is done. For finding the culprit after a bad step: it costs a pass
  // each. The pass goes on, since other ranks wait for this one in its collectives.
  void report_nonfinite(NonfiniteFinding* first) { nonfinite_ = first; }

 private:
  struct Step {
    std::string name;
    const char* op;
    int output;  // id; -1: runs always
    std::function<void()> backward;
  };
  struct Slot {  // gradient of one value
    std::shared_ptr<ArenaTensor> memory;
    Again again;        // makes the value itself, if it is not kept
    ArenaTensor value;  // made again
    bool offered = false;
    std::vector<std::pair<const char*, std::function<void(const Tensor&)>>> waiting;  // op, use
    bool written = false;
    int parent = -1;  // a range of this value's columns
    int64_t begin = 0, count = 0;
    std::vector<int> parts;  // ids of the ranges that it was split into
    Tensor like;             // of a value that was split or is made again
  };

  int add_slot();
  void run_waiting(int id);
  void look_at(const Tensor& t, const std::string& what);
  int owner(int id) const;  // of the memory: the value that this one is a range of, or itself
  bool has_gradient(int id) const { return bool(slots_[size_t(id)].memory); }
  void own_gradient(Slot& slot);
  void run_back_to(size_t steps);
  void replay(const Body& body, const std::vector<int>& groups, const std::vector<int>& outputs);
  void acquire(const std::vector<int>& groups, Pass pass);
  void release(const std::vector<int>& groups, Pass pass);

  Context ctx_;
  ParamStore& params_;
  bool recording_;
  bool replaying_ = false;
  bool selective_ = false;
  NonfiniteFinding* nonfinite_ = nullptr;
  int64_t looks_ = 0;  // for nonfinite_
  StepStats* stats_ = nullptr;
  LayerProbe* probe_ = nullptr;
  OpTimes* times_ = nullptr;
  RouterChoices* choices_ = nullptr;
  std::string block_;        // name of the one that runs
  const char* op_ = "";      // whose backward runs
  int loss_ = -1;            // id
  int recomputed_from_ = 0;  // first id of the innermost recomputed block that runs; else 0
  std::vector<Step> steps_;
  std::vector<Slot> slots_;   // by Var::id
  std::vector<int> touched_;  // ids whose gradient the running closure asked for
};

// Elements of t that are not finite: how many, and the first one; empty: there are none.
std::string describe_nonfinite(const Context& ctx, const Tensor& t);

}  // namespace sluice
