// tests/optim/config_test.cpp -- the optim section: what is read, and what is refused.
#include "optim/config.h"

#include <gtest/gtest.h>

#include <string>

#include "configs/schema.h"

namespace sluice {
namespace {

std::string error_of(const std::string& yaml) {
  try {
    config::load_string<OptimConfig>(yaml, "o.yaml");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(OptimConfig, ReadsEveryKeyAndPrintsItBack) {
  const std::string yaml =
      "{kind: muon, lr: 0.004, betas: [0.8, 0.99], eps: 1.0e-6, weight_decay: 0.2, "
      "clip_grad_norm: 0, schedule: {kind: cosine, warmup_steps: 7, decay_steps: 9, "
      "decay: linear, min_lr_ratio: 0.1}, muon: {momentum: 0.9, ns_steps: 6}, qk_clip_threshold: "
      "100}";
  const auto c = config::load_string<OptimConfig>(yaml, "o.yaml");
  EXPECT_EQ(c.kind, "muon");
  EXPECT_EQ(c.muon.momentum, 0.9);
  EXPECT_EQ(c.muon.ns_steps, 6);
  EXPECT_EQ(c.qk_clip_threshold, 100);
  EXPECT_EQ(c.lr, 0.004);
  EXPECT_EQ(c.betas, (std::array<double, 2>{0.8, 0.99}));
  EXPECT_EQ(c.eps, 1e-6);
  EXPECT_EQ(c.weight_decay, 0.2);
  EXPECT_EQ(c.clip_grad_norm, 0);
  EXPECT_EQ(c.schedule.kind, "cosine");
  EXPECT_EQ(c.schedule.warmup_steps, 7);
  EXPECT_EQ(c.schedule.decay_steps, 9);
  EXPECT_EQ(c.schedule.decay, "linear");
  EXPECT_EQ(c.schedule.min_lr_ratio, 0.1);
  const auto again = config::load_string<OptimConfig>(config::print(c), "printed");
  EXPECT_TRUE(config::diff(c, again).empty()) << config::print(c);
}

TEST(OptimConfig, RefusesWhatCannotBeMeant) {
  struct Case {
    const char *yaml, *key;
  };
  for (const auto& [yaml, key] : {Case{"{kind: sgd}", "kind"},
                                  {"{lr: 0}", "lr"},
                                  {"{lr: .nan}", "lr"},
                                  {"{betas: [0.9, 1.0]}", "betas"},
                                  {"{betas: [-0.1, 0.9]}", "betas"},
                                  {"{betas: [0.9]}", "betas"},
                                  {"{eps: 0}", "eps"},
                                  {"{weight_decay: -1}", "weight_decay"},
                                  {"{clip_grad_norm: -1}", "clip_grad_norm"},
                                  {"{muon: {momentum: 1}}", "muon.momentum"},
                                  {"{muon: {ns_steps: 0}}", "muon.ns_steps"},
                                  {"{qk_clip_threshold: 0}", "qk_clip_threshold"},
                                  {"{schedule: {kind: step}}", "schedule.kind"},
                                  {"{schedule: {warmup_steps: -1}}", "schedule.warmup_steps"},
                                  {"{schedule: {decay_steps: 1.5}}", "schedule.decay_steps"},
                                  {"{schedule: {decay: sqrt}}", "schedule.decay"},
                                  {"{schedule: {min_lr_ratio: 1.5}}", "schedule.min_lr_ratio"}})
    EXPECT_NE(error_of(yaml).find(std::string(key) + ": expected "), std::string::npos)
        << yaml << ": " << error_of(yaml);
}

}  // namespace
}  // namespace sluice
