// optim/optimizer.cpp -- one kernel call a shard, with Muon one for each run of equal matrices.
#include "optim/optimizer.h"

#include "kernels/adamw/adamw.h"
#include "kernels/grad_norm/grad_norm.h"
#include "kernels/muon/muon.h"
#include "optim/table.h"

namespace sluice {

Optimizer::Optimizer(const OptimConfig& config, const ParamStore& params)
    : config_(config), params_(params) {
  const std::vector<Shard> shards = params.trained_shards();
  sum_of_squares_ =
      Buffer(DType::f64, {1}, shards.empty() ? Device::cpu : shards.front().master.device);
  const std::vector<ParamSettings> settings = param_settings(config, params);
  for (size_t i = 0; i < shards.size(); ++i) {
    Owned& o = owned_.emplace_back();
    o.shard = shards[i];
    o.settings = settings[i];
    o.m = Buffer(o.shard.master);
    if (o.settings.owner == Owner::muon)
      o.matrices = matrix_runs(params.spec(o.shard.id), o.shard.begin, o.shard.master.numel());
    else
      o.v = Buffer(o.shard.master);
  }
}

void Optimizer::clip(const Context& ctx, StepState* state,
                     const std::function<void(const Tensor&)>& sum_over_ranks) {
  std::vector<Tensor> grads;
  for (const Owned& o : owned_) grads.push_back(o.shard.grad);
  grad_norm(ctx, {.grads = grads, .sum_of_squares = sum_of_squares_.view()});
  if (sum_over_ranks) sum_over_ranks(sum_of_squares_.view());
  clip_factor(ctx, {.sum_of_squares = sum_of_squares_.view(),
                    .max_norm = config_.clip_grad_norm,
                    .state = state});
}

void Optimizer::step(const Context& ctx, const StepState* state) {
  for (const Owned& o : owned_) {
    for (const MatrixRun& r : o.matrices) {
      const auto matrices = [&](const Tensor& flat) {
        return flat.rows(r.begin, r.numel()).reshape({r.count, r.rows, r.columns});
      };
      muon(ctx, {.param = matrices(o.shard.master),
                 .grad = matrices(o.shard.grad),
                 .m = matrices(o.m.view()),
                 .state = state,
                 .lr_scale = o.settings.lr_scale,
                 .momentum = config_.muon.momentum,
                 .weight_decay = o.settings.weight_decay,
                 .ns_steps = config_.muon.ns_steps});
    }
    if (o.settings.owner == Owner::muon) continue;
    adamw(ctx, {.param = o.shard.master,
                .grad = o.shard.grad,
                .m = o.m.view(),
                .v = o.v.view(),
                .state = state,
                .lr_scale = o.settings.lr_scale,
                .beta1 = config_.betas[0],
                .beta2 = config_.betas[1],
                .eps = config_.eps,
                .weight_decay = o.settings.weight_decay});
  }
}

std::vector<Optimizer::Moments> Optimizer::moments() const {
  std::vector<Moments> list;
  for (const Owned& o : owned_)
    list.push_back({params_.spec(o.shard.id).name, o.m.view(), o.v.view()});
  return list;
}

int64_t Optimizer::bytes() const {
  int64_t n = 0;
  for (const Owned& o : owned_) n += o.m.view().bytes() + (o.v.view() ? o.v.view().bytes() : 0);
  return n;
}

std::string Optimizer::table() const {
  std::vector<ParamSettings> settings;
  for (const Owned& o : owned_) settings.push_back(o.settings);
  return settings_table(config_, params_, settings);
}

}  // namespace sluice
