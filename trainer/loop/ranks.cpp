// trainer/loop/ranks.cpp -- what the ranks of a run tell each other in a step, besides weights and
// gradients: every rank decides the same, because it decides from the same numbers.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "kernels/tensor/fill.h"
#include "trainer/checkpoint/exchange.h"
#include "trainer/loop/fingerprint.h"
#include "trainer/loop/trainer.h"

namespace sluice {

// Small things that the host has: where the ranks talk on the device, by way of it.
static void on_ranks(const Context& ctx, const Tensor& host,
                     const std::function<void(const Tensor&)>& collective) {
  if (ctx.device == Device::cpu) return collective(host);
  Tensor like = host;
  like.device = ctx.device;
  const Buffer there(like);
  copy(host, there.view());
  collective(there.view());
  copy(there.view(), host);
}

void Trainer::sum_on_host(const Tensor& t, const char* what) {
  on_ranks(ctx_, t, [&](const Tensor& x) {
    world_.all_reduce_sum(x, {.what = what, .stream = ctx_.stream});
  });
}

// A rank with another config or another program would not fail, but compute something else. Names
// what differs, key by key.
void Trainer::check_same_run() {
  if (alone()) return;
  auto mine = fingerprint(ctx_, mesh_.shape());
  mine.erase("cpu");
  const nlohmann::json own = {config::print(config_), mine};
  const std::vector<std::string> all = gather_texts(world_, own.dump());
  const auto zero = nlohmann::json::parse(all[0]);
  const auto config = [](const nlohmann::json& j, size_t rank) {
    return config::load_string<Config>(j[0], cat("config of rank ", rank));
  };
  std::string problems;
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    const auto other = nlohmann::json::parse(all[r]);
    for (const auto& [key, a, b] : config::diff(config(zero, 0), config(other, r)))
      problems += cat("\n  rank ", r, " has ", key, ": ", b, ", rank 0 has ", a);
    for (const auto& [key, value] : zero[1].items())
      if (other[1].value(key, "") != value)
        problems += cat("\n  rank ", r, " has ", key, " ", other[1].value(key, ""), ", rank 0 has ",
                        std::string(value));
  }
  if (!problems.empty())
    throw ExitError(ExitCode::config,
                    cat("the ranks are not of one run:", problems,
                        "\nStart all with one program, one config and the same --set"));
}

// Queued behind the step's passes, before the update reads any of it. Each token counted on one
// rank, in one replica.
void Trainer::sum_over_ranks() {
  if (alone()) return;
  const auto use = [&](const char* what) { return CommUse{.what = what, .stream = ctx_.stream}; };
  StepState* const state = state_.at();
  static_assert(offsetof(StepState, z_loss) == offsetof(StepState, cross_entropy) + sizeof(double));
  const auto of_state = [&](void* at, DType dtype, int64_t n) {
    return make_tensor(at, dtype, ctx_.device, {n});
  };
  world_.all_reduce_sum(of_state(&state->cross_entropy, DType::f64, 2), use("losses"));
  world_.all_reduce_max(of_state(&state->stop, DType::i32, 1), use("stop signal"));
  if (stats_->expert_counts()) world_.all_reduce_sum(stats_->expert_counts(), use("expert counts"));
  if (stats_->max_logits()) world_.all_reduce_max(stats_->max_logits(), use("attention logits"));
}

// The shards of one replica are all elements once.
std::function<void(const Tensor&)> Trainer::norm_over_ranks() {
  if (alone()) return {};
  return [this](const Tensor& sum) {
    if (mesh_.replicate_rank() > 0) zero(ctx_, sum);
    world_.all_reduce_sum(sum, {.what = "gradient norm", .stream = ctx_.stream});
  };
}

// The earliest one, and of equals that of the lowest rank; empty: nobody found any.
std::string Trainer::first_of_ranks(const NonfiniteFinding& mine) {
  if (alone()) return mine.what;
  constexpr int64_t kText = 1024;
  const int64_t ranks = world_.size();
  const Buffer looks(DType::i64, {ranks});
  looks.view().as<int64_t>()[world_.rank()] = mine.looks + 1;
  on_ranks(ctx_, looks.view(), [&](const Tensor& x) {
    world_.all_reduce_sum(x, {.what = "search: where", .stream = ctx_.stream});
  });
  const int64_t* const l = looks.view().as<int64_t>();
  int64_t first = -1;
  for (int64_t r = 0; r < ranks; ++r)
    if (l[r] > 0 && (first < 0 || l[r] < l[first])) first = r;
  if (first < 0) return "";
  const Buffer text(DType::u8, {kText});
  char* const bytes = static_cast<char*>(text.view().data);
  std::memcpy(bytes, mine.what.data(), std::min(mine.what.size(), size_t(kText - 1)));
  on_ranks(ctx_, text.view(), [&](const Tensor& x) {
    world_.broadcast(x, int(first), {.what = "search: what", .stream = ctx_.stream});
  });
  return cat("rank ", first, ": ", bytes);
}

// With several ranks the one that all have agreed on in the last step that is settled.
int Trainer::stop_signal() const {
  return alone() ? signals_.received() : results_->state().stop;
}

}  // namespace sluice
