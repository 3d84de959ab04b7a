// model/autograd/param_store.h -- parameters by handle: who holds them, and where, is the store's
// business.
#pragma once

#include <string>
#include <vector>

#include "kernels/tensor/context.h"

namespace sluice {

// How initial values are drawn. They are a pure function of (seed, name, global element index), so
// that any sharding starts from the same model.
struct Init {
  enum class Kind : uint8_t {
    constant,                      // a
    normal,                        // mean 0, standard deviation a
    uniform,                       // [a, b)
    log_uniform_log,               // log(x), x uniform in [a, b): KDA's A_log
    inverse_softplus_log_uniform,  // softplus^-1(x), log x uniform in [log a, log b): KDA's dt_bias
  };
  Kind kind = Kind::constant;
  double a = 0, b = 0;
};

// Rows of a fused weight that are a matrix of their own: for Muon, QK-clip and export.
struct RowBlock {
  std::string name;  // "q_proj"
  int64_t rows;
};

// Of a projection whose rows are heads, those that make attention logits: for QK-clip. Of each head
// the first `nope` rows (of the queries, or of the keys), then `rope` rows of the queries that meet
// the key slice of all heads. What follows are values.
struct HeadRows {
  int64_t count = 0;  // of heads; 0: no such projection
  int64_t nope = 0, rope = 0;
};

// What changes a parameter after a step.
enum class UpdateRule : uint8_t {
  gradient,     // the optimizer
  expert_load,  // optim/expert_bias.h: saved like a weight, but with no gradient, moments or decay
};

struct ParamSpec {
  std::string name;  // "layers.3.kda.qkv_proj": the key in checkpoints, logs and error messages
  std::vector<int64_t> shape;
  Init init{};
  int group = 0;  // the block that it is acquired and released with
  bool weight_decay = true;
  bool expert = false;  // sharded over the expert mesh first
  // Of the rows of one matrix: shape[0] of them, in an expert weight [E, rows, columns] shape[1].
  // Empty: the whole is one matrix.
  std::vector<RowBlock> row_blocks{};
  UpdateRule rule = UpdateRule::gradient;
  // A map between hidden states, which Muon may train. Embedding, head and convolutions have two
  // dimensions as well, but their rows stand for themselves.
  bool matrix = false;
  HeadRows heads{};  // one attention a group: parameters of a group share its logits
  // Computed with as the master is, also where other weights are rounded to bf16: norms, constants
  // of a head, biases. Small, and products of nothing.
  bool wide = false;

  int64_t numel() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
};

struct ParamId {
  int index = -1;
};

// Which way the pass goes that a group is needed for: backward also needs room for gradients, and
// its release is when they are complete for this micro-batch.
enum class Pass : uint8_t { forward, backward };

// The part of a parameter that this rank owns, flat: elements begin .. begin + master.dim(0).
struct Shard {
  ParamId id;
  int64_t begin = 0;
  Tensor master;  // [n] f32 (f64 in checks)
  Tensor grad;    // [n] as master; complete once every micro-batch has gone backward. None if
                  // no gradient changes the parameter
  Tensor copy{};  // [n] bf16: the master rounded, where value() is that; else none. Who changes
                  // masters writes it, or calls refresh()
};

// What a store takes on its device, padding included.
struct StoreBytes {
  int64_t masters = 0, gradients = 0;  // of this rank's shards
  int64_t copies = 0;                  // bf16
  int64_t gathered = 0;                // whole groups, while they are used
  int64_t unsharded = 0;               // gradients of whole groups, and what sums of them need

  int64_t total() const { return masters + gradients + copies + gathered + unsharded; }
};

// Plain on one rank (PlainStore); a sharded one gathers and scatters behind the same calls
// (trainer/parallel/sharded_store.h).
class ParamStore {
 public:
  virtual ~ParamStore() = default;

  int add_group(std::string name);       // returns the index for ParamSpec::group
  ParamId add(const ParamSpec& spec);    // before allocate(); names are unique
  virtual void plan() = 0;               // sizes alone: shards exist, their memory does not
  virtual void allocate() = 0;           // after the last add(): fixes all storage
  virtual StoreBytes bytes() const = 0;  // also when only planned

  int groups() const { return int(group_names_.size()); }
  int size() const { return int(specs_.size()); }
  const std::string& group_name(int group) const { return group_names_.at(size_t(group)); }
  const ParamSpec& spec(ParamId id) const { return specs_.at(size_t(id.index)); }
  ParamId find(const std::string& name) const;  // throws, naming the nearest, if there is none
  int64_t numel() const;                        // elements of all parameters

  // Between acquire() and release() of its group, value() (and in a backward pass grad()) are
  // valid; memory kept across release() belongs to another block. Calls may nest, for
  // one group too. In plan mode nothing is moved. An expert weight [E, ...] has the shape of the
  // experts that this rank computes with.
  virtual void acquire(int group, Pass pass, const Context& ctx = {}) = 0;
  virtual void release(int group, Pass pass, const Context& ctx = {}) = 0;
  virtual Tensor value(ParamId id) = 0;  // bf16 on CUDA unless ParamSpec::wide; shape of the spec
  virtual Grad grad(ParamId id) = 0;     // where this micro-batch's gradient goes

  // To be called when masters were changed by other than the update after finish_gradients(),
  // before the next pass.
  virtual void refresh(const Context&) {}

  virtual void start_step() = 0;  // forgets the gradients of the step before
  // Makes the shards' gradients complete; zeroes those that nothing wrote in this step.
  virtual void finish_gradients(const Context& ctx = {}) = 0;
  // What was released is in the shards when the context's stream comes here: for who looks at
  // gradients before they are finished.
  virtual void settle(const Context&) {}
  virtual const std::vector<Shard>& shards() const = 0;
  std::vector<Shard> trained_shards() const;  // those of UpdateRule::gradient

 private:
  std::vector<std::string> group_names_;
  std::vector<ParamSpec> specs_;
};

// Draws the initial value of every shard on the CPU (see Init), by the threads of `host`.
void initialize(ParamStore& params, uint64_t seed, const Context& host = {});

}  // namespace sluice
