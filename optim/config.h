// optim/config.h -- the `optim:` section of a config.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sluice {

struct ScheduleConfig {
  std::string kind = "wsd";  // wsd | cosine | constant
  int64_t warmup_steps = 40;
  int64_t decay_steps = 80;      // wsd: the last ones
  std::string decay = "1-sqrt";  // wsd: 1-sqrt | linear
  double min_lr_ratio = 0;       // where the decay ends, as a share of lr

  template <class V>
  void visit(V& v) {
    auto count = [](int64_t x) { return x >= 0; };
    v("kind", kind, "wsd, cosine or constant",
      [](const std::string& s) { return s == "wsd" || s == "cosine" || s == "constant"; });
    v("warmup_steps", warmup_steps, "a count of at least 0", count);
    v("decay_steps", decay_steps, "a count of at least 0", count);
    v("decay", decay, "1-sqrt or linear",
      [](const std::string& s) { return s == "1-sqrt" || s == "linear"; });
    v("min_lr_ratio", min_lr_ratio, "a number from 0 to 1",
      [](double x) { return x >= 0 && x <= 1; });
  }
};

// Settings of the parameters whose name matches, over the built-in ones (optim/groups.h).
struct GroupRule {
  std::string match;                   // a glob over whole names: "*.A_log"
  std::optional<double> weight_decay;  // null: as it was
  double lr_scale = 1;

  template <class V>
  void visit(V& v) {
    v("match", match, "a glob of parameter names", [](const std::string& s) { return !s.empty(); });
    v("weight_decay", weight_decay, "null or a number of at least 0",
      [](const auto& x) { return !x || *x >= 0; });
    v("lr_scale", lr_scale, "a number of at least 0", [](double x) { return x >= 0; });
  }
};

// Of the matrices, with kind muon.
struct MuonConfig {
  double momentum = 0.95;
  int64_t ns_steps = 5;  // Newton-Schulz iterations

  template <class V>
  void visit(V& v) {
    v("momentum", momentum, "a number from 0 to below 1", [](double x) { return x >= 0 && x < 1; });
    v("ns_steps", ns_steps, "a count above 0", [](int64_t x) { return x > 0; });
  }
};

struct OptimConfig {
  std::string kind = "adamw";  // adamw | muon: matrices by Muon, the rest by AdamW
  double lr = 2e-3;            // peak, after warmup
  std::array<double, 2> betas{0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;    // decoupled; matrices only
  double clip_grad_norm = 1.0;  // global L2 norm; 0: no clipping
  ScheduleConfig schedule;
  std::vector<GroupRule> groups;  // in order; the last one that matches wins
  MuonConfig muon;
  std::optional<double> qk_clip_threshold;  // largest attention logit of a head; null: no QK-clip
  std::string state_dtype = "f32";  // f32 | bf16: of moments and momentum, by stochastic rounding
  std::string offload = "none";     // none | host: where these lie, if the model is on a GPU

  template <class V>
  void visit(V& v) {
    v("kind", kind, "adamw or muon",
      [](const std::string& s) { return s == "adamw" || s == "muon"; });
    v("lr", lr, "a number above 0", [](double x) { return x > 0; });
    v("betas", betas, "two numbers from 0 to below 1", [](const std::array<double, 2>& b) {
      return b[0] >= 0 && b[0] < 1 && b[1] >= 0 && b[1] < 1;
    });
    v("eps", eps, "a number above 0", [](double x) { return x > 0; });
    v("weight_decay", weight_decay, "a number of at least 0", [](double x) { return x >= 0; });
    v("clip_grad_norm", clip_grad_norm, "a number of at least 0", [](double x) { return x >= 0; });
    v.section("schedule", schedule);
    v.list("groups", groups, "a list of {match, weight_decay, lr_scale}");
    v.section("muon", muon);
    v("qk_clip_threshold", qk_clip_threshold, "null or a number above 0",
      [](const auto& x) { return !x || *x > 0; });
    v("state_dtype", state_dtype, "f32 or bf16",
      [](const std::string& s) { return s == "f32" || s == "bf16"; });
    v("offload", offload, "none or host",
      [](const std::string& s) { return s == "none" || s == "host"; });
  }
};

}  // namespace sluice
