// optim/adamw_optimizer.cpp -- one kernel call a shard.
#include "optim/adamw_optimizer.h"

#include "kernels/adamw/adamw.h"
#include "kernels/grad_norm/grad_norm.h"

namespace sluice {

AdamWOptimizer::AdamWOptimizer(const OptimConfig& config, const ParamStore& params)
    : config_(config),
      params_(params),
      shards_(params.trained_shards()),
      settings_(param_settings(config, params)),
      sum_of_squares_(DType::f64, {1}) {
  for (const Shard& s : shards_) {
    m_.emplace_back(s.master);
    v_.emplace_back(s.master);
  }
}

void AdamWOptimizer::clip(const Context& ctx, StepState* state,
                          const std::function<void(const Tensor&)>& sum_over_ranks) {
  std::vector<Tensor> grads;
  for (const Shard& s : shards_) grads.push_back(s.grad);
  grad_norm(ctx, {.grads = grads, .sum_of_squares = sum_of_squares_.view()});
  if (sum_over_ranks) sum_over_ranks(sum_of_squares_.view());
  clip_factor(ctx, {.sum_of_squares = sum_of_squares_.view(),
                    .max_norm = config_.clip_grad_norm,
                    .state = state});
}

void AdamWOptimizer::step(const Context& ctx, const StepState* state) {
  for (size_t i = 0; i < shards_.size(); ++i)
    adamw(ctx, {.param = shards_[i].master,
                .grad = shards_[i].grad,
                .m = m_[i].view(),
                .v = v_[i].view(),
                .state = state,
                .lr_scale = settings_[i].lr_scale,
                .beta1 = config_.betas[0],
                .beta2 = config_.betas[1],
                .eps = config_.eps,
                .weight_decay = settings_[i].weight_decay});
}

std::vector<AdamWOptimizer::Moments> AdamWOptimizer::moments() const {
  std::vector<Moments> list;
  for (size_t i = 0; i < m_.size(); ++i)
    list.push_back({params_.spec(shards_[i].id).name, m_[i].view(), v_[i].view()});
  return list;
}

int64_t AdamWOptimizer::bytes() const {
  int64_t n = 0;
  for (size_t i = 0; i < m_.size(); ++i) n += m_[i].view().bytes() + v_[i].view().bytes();
  return n;
}

std::string AdamWOptimizer::table() const {
  return settings_table(config_, params_, settings_);
}

}  // namespace sluice
