// optim/optimizer.cpp -- one call for all of AdamW's shards, with Muon one for each run of equal
// matrices that are here. Those on several ranks: muon_round.cpp.
#include "optim/optimizer.h"

#include "kernels/grad_norm/grad_norm.h"
#include "kernels/muon/muon.h"
#include "kernels/tensor/rng.h"
#include "optim/table.h"

namespace sluice {

// Of a planned master just the shape.
Optimizer::State Optimizer::zeros_like(const Tensor& master) const {
  State s;
  s.t = master;
  if (config_.state_dtype == "bf16") s.t.dtype = DType::bf16;
  if (!master.data) return s;
  if (offloads()) {
    s.host_memory = PinnedBuffer(master.device, s.t.bytes());
    s.t.data = s.host_memory.view().data;
  } else {
    s.memory = Buffer(s.t);
    s.t = s.memory.view();
  }
  return s;
}

Optimizer::Optimizer(const OptimConfig& config, const ParamStore& params, ShardGroups groups,
                     uint64_t seed)
    : config_(config), params_(params), owned_of_(size_t(params.size()), -1) {
  const std::vector<Shard> shards = params.trained_shards();
  const bool planned = !shards.empty() && !shards.front().master.data;
  const Device device = shards.empty() ? Device::cpu : shards.front().master.device;
  SLUICE_CHECK(!offloads() || device == Device::cuda,
               "optim.offload is host, but the model is on the cpu, where its states are anyway");
  if (!planned) sum_memory_ = Buffer(DType::f64, {1}, device);
  sum_of_squares_ = planned ? make_tensor(nullptr, DType::f64, device, {1}) : sum_memory_.view();
  const std::vector<ParamSettings> settings = param_settings(config, params);
  for (size_t i = 0; i < shards.size(); ++i) {
    Owned& o = owned_.emplace_back();
    o.shard = shards[i];
    o.settings = settings[i];
    o.m = zeros_like(o.shard.master);
    if (o.m.t.dtype == DType::bf16)
      o.rounding = {rng_key(seed, "state of " + params.spec(o.shard.id).name), o.shard.begin};
    owned_of_[size_t(o.shard.id.index)] = int(i);
    grads_.push_back(o.shard.grad);
    if (o.settings.owner == Owner::muon) {
      const ParamSpec& spec = params.spec(o.shard.id);
      if (groups.of(spec).size() == 1)
        o.matrices = matrix_runs(spec, o.shard.begin, o.shard.master.numel());
      continue;
    }
    o.v = zeros_like(o.shard.master);
    adamw_.push_back({.param = o.shard.master,
                      .grad = o.shard.grad,
                      .m = o.m.t,
                      .v = o.v.t,
                      .copy = o.shard.copy,
                      .state = nullptr,
                      .lr_scale = o.settings.lr_scale,
                      .beta1 = config.betas[0],
                      .beta2 = config.betas[1],
                      .eps = config.eps,
                      .weight_decay = o.settings.weight_decay,
                      .rounding = o.rounding});
  }
  if (config.kind != "muon") return;
  plan_distributed(groups.weights, false);
  plan_distributed(groups.experts, true);
}

void Optimizer::plan_distributed(const ShardGroup& group, bool experts) {
  if (group.size() == 1) return;
  std::vector<Matrix> matrices;
  for (int i = 0; i < params_.size(); ++i) {
    const ParamSpec& spec = params_.spec({i});
    if (!spec.matrix || spec.expert != experts) continue;
    for (const Matrix& m : matrices_of(spec, {i})) matrices.push_back(m);
  }
  distributed_.push_back({group.comm, plan_muon(matrices, group, params_)});
}

void Optimizer::clip(const Context& ctx, StepState* state,
                     const std::function<void(const Tensor&)>& sum_over_ranks) {
  grad_norm(ctx, {.grads = grads_, .sum_of_squares = sum_of_squares_});
  if (sum_over_ranks) sum_over_ranks(sum_of_squares_);
  clip_factor(
      ctx, {.sum_of_squares = sum_of_squares_, .max_norm = config_.clip_grad_norm, .state = state});
}

void Optimizer::muon_step(const Context& ctx, const Owned& o, const StepState* state) const {
  for (const MatrixRun& r : o.matrices) {
    const auto matrices = [&](const Tensor& flat) {
      return flat ? flat.rows(r.begin, r.numel()).reshape({r.count, r.rows, r.columns}) : Tensor{};
    };
    muon(ctx, {.param = matrices(o.shard.master),
               .grad = matrices(o.shard.grad),
               .m = matrices(o.m.t),
               .copy = matrices(o.shard.copy),
               .state = state,
               .lr_scale = o.settings.lr_scale,
               .momentum = config_.muon.momentum,
               .weight_decay = o.settings.weight_decay,
               .ns_steps = config_.muon.ns_steps,
               .rounding = {o.rounding.key, o.rounding.begin + r.begin}});
  }
}

void Optimizer::step(const Context& ctx, const StepState* state) {
  for (const Owned& o : owned_) muon_step(ctx, o, state);
  for (const Distributed& d : distributed_)
    for (const MuonRound& round : d.plan.rounds) muon_round(ctx, d, round, state);
  for (AdamW& a : adamw_) a.state = state;
  adamw(ctx, adamw_);
}

std::vector<Optimizer::Moments> Optimizer::moments() const {
  std::vector<Moments> list;
  for (const Owned& o : owned_)
    list.push_back({params_.spec(o.shard.id).name, o.m.t, o.v.t, o.shard.id, o.shard.begin});
  return list;
}

int64_t Optimizer::state_bytes() const {
  int64_t n = 0;
  for (const Owned& o : owned_) n += o.m.t.bytes() + (o.v.t ? o.v.t.bytes() : 0);
  return n;
}

std::string Optimizer::table() const {
  std::vector<MuonPlan> plans;
  for (const Distributed& d : distributed_) plans.push_back(d.plan);
  return settings_table(config_, params_, plans);
}

}  // namespace sluice
