// trainer/gradcheck/op_cases.cpp -- each op alone: a random weighted sum of its output as the loss.
#include <fmt/format.h>

#include <deque>

#include "model/autograd/basic_ops.h"
#include "model/autograd/loss_op.h"
#include "model/autograd/mixer_ops.h"
#include "model/autograd/moe_ops.h"
#include "model/autograd/plain_store.h"
#include "trainer/gradcheck/differences.h"
#include "trainer/gradcheck/gradcheck.h"

namespace sluice {

namespace {

// Packed documents of 1, 0, 13, 40 and 70 tokens: shorter and longer than a chunk, and an empty
// one.
constexpr int32_t kDocuments[] = {0, 1, 1, 14, 54, 124};
constexpr int64_t kTokens = 124;

// One op with its inputs and parameters, in f64.
class Case {
 public:
  Case(const Context& ctx, std::string name, uint64_t seed)
      : ctx_(ctx), name_(std::move(name)), seed_(seed), params_(DType::f64) {
    params_.add_group("op");
    cu_seqlens_ = Buffer(DType::i32, {int64_t(std::size(kDocuments))});
    std::copy(std::begin(kDocuments), std::end(kDocuments), cu_seqlens_.view().as<int32_t>());
  }

  ParamId param(const std::string& name, std::vector<int64_t> shape, double stddev = 1,
                double mean = 0) {
    moments_.push_back({mean, stddev});
    return params_.add({.name = name,
                        .shape = std::move(shape),
                        .init = {},
                        .group = 0,
                        .weight_decay = true,
                        .expert = false,
                        .row_blocks = {}});
  }
  // A parameter without a gradient: it takes part, and no row is made for it.
  ParamId expert_bias(const std::string& name, int64_t E, double stddev) {
    moments_.push_back({0, stddev});
    return params_.add({.name = name,
                        .shape = {E},
                        .init = {},
                        .group = 0,
                        .weight_decay = false,
                        .expert = false,
                        .row_blocks = {},
                        .rule = UpdateRule::expert_load});
  }
  int input(const std::string& name, int64_t columns, double stddev = 1, double mean = 0,
            int64_t rows = kTokens) {
    inputs_.emplace_back(DType::f64, std::initializer_list<int64_t>{rows, columns});
    names_.push_back(name);
    fill(inputs_.back().view(), mean, stddev);
    return int(inputs_.size()) - 1;
  }
  Tensor tokens(int64_t vocab, int64_t ignore_every) {
    Buffer& t = integers_.emplace_back(DType::i32, std::initializer_list<int64_t>{kTokens});
    for (int64_t n = 0; n < kTokens; ++n)
      t.view().as<int32_t>()[n] = ignore_every && n % ignore_every == 0
                                      ? -1
                                      : int32_t(random_u64(seed_, uint64_t(n)) % uint64_t(vocab));
    return t.view();
  }
  const Tensor& cu_seqlens() const { return cu_seqlens_.view(); }

  using Op = std::function<Var(Tape&, const std::vector<Var>&)>;
  void check(const Op& op, std::vector<GradcheckRow>& rows);

 private:
  void fill(const Tensor& t, double mean, double stddev) {
    ++draws_;
    for (int64_t i = 0; i < t.numel(); ++i)
      t.as<double>()[i] = mean + stddev * random_normal(seed_ + 1000 * draws_, uint64_t(i));
  }
  Var weighted_sum(Tape& tape, const Var& y);
  Var run(Tape& tape, const Op& op, std::vector<Var>& inputs);

  Context ctx_;
  RouterChoices choices_;  // the unperturbed run's, for all
  std::string name_;
  uint64_t seed_, draws_ = 0;
  PlainStore params_;
  Buffer cu_seqlens_;
  std::vector<std::pair<double, double>> moments_;  // mean, stddev by parameter
  std::deque<Buffer> inputs_, integers_;
  std::vector<std::string> names_;
};

// loss = sum y * w, w fixed and random; a [1] output is the loss already.
Var Case::weighted_sum(Tape& tape, const Var& y) {
  if (y.value.rank == 1) return y;
  const Var loss = tape.make(DType::f64, {1});
  const uint64_t key = seed_ + 7;
  double sum = 0;
  for (int64_t i = 0; i < y.value.numel(); ++i)
    sum += y.value.as<double>()[i] * random_normal(key, uint64_t(i));
  *loss.value.as<double>() = sum;
  tape.record("weighted_sum", loss, [&tape, y, key] {
    const Grad g = tape.grad(y);
    for (int64_t i = 0; i < g.t.numel(); ++i)
      g.t.as<double>()[i] = random_normal(key, uint64_t(i)) + (g.add ? g.t.as<double>()[i] : 0);
  });
  return loss;
}

Var Case::run(Tape& tape, const Op& op, std::vector<Var>& inputs) {
  inputs.clear();
  tape.replay_choices(&choices_);
  for (const Buffer& b : inputs_) inputs.push_back(tape.input(b.view()));
  return tape.block("op", {0}, Recompute::none,
                    [&] { return std::vector<Var>{weighted_sum(tape, op(tape, inputs))}; })[0];
}

void Case::check(const Op& op, std::vector<GradcheckRow>& rows) {
  params_.allocate();
  for (const Shard& s : params_.shards()) {
    const auto [mean, stddev] = moments_[size_t(s.id.index)];
    fill(s.master, mean, stddev);
  }
  auto loss = [&] {
    std::vector<Var> inputs;
    Tape tape(ctx_, params_, Tape::Mode::infer);
    return *run(tape, op, inputs).value.as<double>();
  };
  params_.start_step();
  std::vector<Var> inputs;
  Tape tape(ctx_, params_, Tape::Mode::train);
  tape.backward(run(tape, op, inputs));
  params_.finish_gradients();

  for (size_t i = 0; i < inputs.size(); ++i)
    rows.push_back(
        {name_ + ": " + names_[i],
         directional_error(loss, inputs_[i].view(), tape.upstream(inputs[i].id), seed_ + i)});
  for (const Shard& s : params_.trained_shards())
    rows.push_back({name_ + ": " + params_.spec(s.id).name,
                    directional_error(loss, s.master, s.grad, seed_ + 50)});
}

void check_token_ops(const Context& ctx, uint64_t seed, std::vector<GradcheckRow>& rows) {
  {
    Case c(ctx, "embedding", seed);
    const ParamId table = c.param("table", {11, 6});
    const Tensor tokens = c.tokens(11, 0);
    c.check([&](Tape& t, auto&) { return embedding(t, tokens, table); }, rows);
  }
  {
    Case c(ctx, "linear", seed);
    c.input("x", 7);
    const ParamId w = c.param("w", {9, 7});
    c.check([&](Tape& t, auto& x) { return linear(t, x[0], w); }, rows);
  }
  {
    Case c(ctx, "rmsnorm", seed);
    c.input("x", 7);
    const ParamId w = c.param("w", {7});
    c.check([&](Tape& t, auto& x) { return rmsnorm(t, x[0], w, 1e-5); }, rows);
  }
  {
    Case c(ctx, "swiglu", seed);
    c.input("gate_up", 10);
    c.check([&](Tape& t, auto& x) { return swiglu(t, x[0]); }, rows);
  }
  {
    Case c(ctx, "sigmoid_gate", seed);
    c.input("x", 5);
    c.input("gate", 5);
    c.check([&](Tape& t, auto& x) { return sigmoid_gate(t, x[0], x[1]); }, rows);
  }
  {
    Case c(ctx, "silu", seed);
    c.input("x", 5);
    c.check([&](Tape& t, auto& x) { return silu(t, x[0]); }, rows);
  }
  {
    Case c(ctx, "add", seed);
    c.input("a", 5);
    c.input("b", 5);
    c.check([&](Tape& t, auto& x) { return add(t, x[0], x[1]); }, rows);
  }
  for (const bool swish : {false, true}) {
    Case c(ctx, swish ? "gated_rmsnorm swish" : "gated_rmsnorm sigmoid", seed);
    c.input("x", 12);
    c.input("gate", 12);
    const ParamId w = c.param("w", {4});
    const auto act = swish ? GateActivation::swish : GateActivation::sigmoid;
    c.check([&](Tape& t, auto& x) { return gated_rmsnorm(t, x[0], x[1], w, 1e-5, act); }, rows);
  }
  for (const double z_loss : {0.0, 0.1}) {
    Case c(ctx, z_loss > 0 ? "linear_cross_entropy z_loss" : "linear_cross_entropy", seed);
    c.input("h", 6);
    const ParamId w = c.param("w", {13, 6});
    const Tensor targets = c.tokens(13, 5);
    Buffer scale(DType::f64, {1});
    *scale.view().as<double>() = 0.01;
    c.check(
        [&](Tape& t, auto& x) {
          return linear_cross_entropy(t, x[0], w, {targets, scale.view(), z_loss});
        },
        rows);
  }
}

void check_mixer_ops(const Context& ctx, uint64_t seed, std::vector<GradcheckRow>& rows) {
  {
    Case c(ctx, "short_conv", seed);
    c.input("x", 6);
    const ParamId w = c.param("w", {6, 4});
    c.check([&](Tape& t, auto& x) { return short_conv(t, x[0], w, c.cu_seqlens()); }, rows);
  }
  for (const GateLaw gate : {GateLaw::softplus, GateLaw::bounded}) {
    const int64_t H = 2, HV = 4, K = 5, V = 3;
    Case c(ctx, gate == GateLaw::softplus ? "kda softplus" : "kda bounded", seed);
    c.input("q", H * K);
    c.input("k", H * K);
    c.input("v", HV * V);
    c.input("g", HV * K);
    c.input("beta", HV);
    const ParamId A_log = c.param("A_log", {HV}, 0.5),
                  dt_bias = c.param("dt_bias", {HV, K}, 0.5, -3);
    const KdaParams params{
        .gate = gate, .gate_lower_bound = -5, .beta_max = gate == GateLaw::bounded ? 2.0 : 1.0};
    c.check(
        [&](Tape& t, auto& x) {
          return kda(t, {x[0], x[1], x[2], x[3], x[4], A_log, dt_bias, H, HV, params},
                     c.cu_seqlens());
        },
        rows);
  }
  for (const bool delta_rule : {true, false}) {
    const int64_t H = 2, HV = 4, K = 5, V = 3;
    Case c(ctx, delta_rule ? "gdn" : "mamba2", seed);
    c.input("q", H * K);
    c.input("k", H * K);
    c.input("v", HV * V);
    c.input("g", HV);
    if (delta_rule) c.input("beta", HV);
    const ParamId A_log = c.param("A_log", {HV}, 0.5), dt_bias = c.param("dt_bias", {HV}, 0.5, -3);
    const GdnParams params{.delta_rule = delta_rule, .beta_max = delta_rule ? 2.0 : 1.0};
    c.check(
        [&](Tape& t, auto& x) {
          const Var beta = delta_rule ? x[4] : Var{};
          return gdn(t, {x[0], x[1], x[2], x[3], beta, A_log, dt_bias, H, HV, params},
                     c.cu_seqlens());
        },
        rows);
  }
  for (const double theta : {0.0, 100.0}) {
    const int64_t H = 2, nope = 4, rope = 2, V = 3;
    Case c(ctx, theta == 0 ? "mla nope" : "mla rope", seed);
    c.input("q", H * (nope + rope));
    c.input("kv", H * (nope + V));
    c.input("k_rope", rope);
    c.check(
        [&](Tape& t, auto& x) {
          return mla_attention(t, {x[0], x[1], x[2], H, nope, rope, V, theta}, c.cu_seqlens(),
                               c.cu_seqlens());
        },
        rows);
  }
}

void check_moe_ops(const Context& ctx, uint64_t seed, std::vector<GradcheckRow>& rows) {
  const int64_t E = 7, k = 2, R = kTokens * k;
  // Biases larger than scores: some experts get most tokens, some none.
  for (const RouterScore score : {RouterScore::sigmoid, RouterScore::softmax})
    for (const bool renormalize : {false, true}) {
      Case c(ctx,
             fmt::format("route {}{}", score == RouterScore::sigmoid ? "sigmoid" : "softmax",
                         renormalize ? " renormalized" : ""),
             seed);
      c.input("logits", E);
      const ParamId bias = c.expert_bias("bias", E, 0.5);
      const RouteParams params{.score = score, .renormalize = renormalize, .scale = 2.446};
      c.check([&](Tape& t, auto& x) { return route(t, x[0], bias, k, params).weights; }, rows);
    }
  // The rest along a route from logits that are no input of the case.
  Buffer logits(DType::f64, {kTokens, E});
  for (int64_t i = 0; i < logits.view().numel(); ++i)
    logits.view().as<double>()[i] = random_normal(seed + 3, uint64_t(i));
  const auto routed = [&](Tape& t, ParamId bias) {
    return route(t, t.input(logits.view()), bias, k, {});
  };
  {
    Case c(ctx, "dispatch", seed);
    c.input("x", 6);
    const ParamId bias = c.expert_bias("bias", E, 2);
    c.check([&](Tape& t, auto& x) { return dispatch(t, x[0], routed(t, bias)); }, rows);
  }
  {
    Case c(ctx, "grouped_linear", seed);
    c.input("x", 6, 1, 0, R);
    const ParamId w = c.param("w", {E, 5, 6}), bias = c.expert_bias("bias", E, 2);
    c.check([&](Tape& t, auto& x) { return grouped_linear(t, x[0], w, routed(t, bias)); }, rows);
  }
  {
    Case c(ctx, "combine", seed);
    c.input("ys", 6, 1, 0, R);
    c.input("logits", E);
    const ParamId bias = c.expert_bias("bias", E, 2);
    c.check([&](Tape& t, auto& x) { return combine(t, x[0], route(t, x[1], bias, k, {})); }, rows);
  }
}

}  // namespace

std::vector<GradcheckRow> gradcheck_ops(const Context& ctx, uint64_t seed) {
  std::vector<GradcheckRow> rows;
  check_token_ops(ctx, seed, rows);
  check_mixer_ops(ctx, seed, rows);
  check_moe_ops(ctx, seed, rows);
  return rows;
}

}  // namespace sluice
