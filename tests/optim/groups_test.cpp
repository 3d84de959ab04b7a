// tests/optim/groups_test.cpp -- optim.groups: which parameters a rule reaches, and what it does.
#include "optim/groups.h"

#include <gtest/gtest.h>

#include <memory>

#include "configs/schema.h"
#include "model/autograd/plain_store.h"
#include "optim/optimizer.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using test::element;

std::unique_ptr<PlainStore> make_store() {
  auto store = std::make_unique<PlainStore>(DType::f64);
  const int group = store->add_group("block");
  for (const char* name : {"layers.0.kda.A_log", "layers.0.kda.o_proj", "layers.1.mla.o_proj"})
    store->add({.name = name,
                .shape = {4},
                .init = {},
                .group = group,
                .weight_decay = std::string(name).find("A_log") == std::string::npos,
                .expert = false,
                .row_blocks = {}});
  store->allocate();
  for (const Shard& s : store->shards()) {
    test::fill_normal(s.master, uint64_t(10 + s.id.index));
    test::fill_normal(s.grad, uint64_t(20 + s.id.index));
  }
  return store;
}

OptimConfig read(const std::string& groups) {
  return config::load_string<OptimConfig>(
      "{weight_decay: 0.1, clip_grad_norm: 0, groups: [" + groups + "]}", "o.yaml");
}

TEST(Groups, TheLastRuleThatMatchesWins) {
  const auto store = make_store();
  const auto s = param_settings(
      read("{match: '*.o_proj', lr_scale: 0.5}, {match: 'layers.1.*', weight_decay: 0.3}"), *store);
  EXPECT_EQ(s[0].weight_decay, 0);  // built in
  EXPECT_EQ(s[0].lr_scale, 1);
  EXPECT_EQ(s[0].rule, -1);
  EXPECT_EQ(s[1].weight_decay, 0.1);  // null: as it was
  EXPECT_EQ(s[1].lr_scale, 0.5);
  EXPECT_EQ(s[1].rule, 0);
  EXPECT_EQ(s[2].weight_decay, 0.3);
  EXPECT_EQ(s[2].lr_scale, 1);
  EXPECT_EQ(s[2].rule, 1);
}

TEST(Groups, AMatchIsOfTheWholeName) {
  const auto store = make_store();
  EXPECT_THROW(param_settings(read("{match: A_log, lr_scale: 2}"), *store), Error);
  EXPECT_EQ(param_settings(read("{match: '*A_log', weight_decay: 7}"), *store)[0].weight_decay, 7);
}

TEST(Groups, ARuleThatMatchesNothingIsNamed) {
  const auto store = make_store();
  try {
    param_settings(read("{match: '*', lr_scale: 1}, {match: layers.0.kda.B_log}"), *store);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "optim.groups[1].match: \"layers.0.kda.B_log\" matches none of the 3 parameters; "
                 "did you mean \"layers.0.kda.A_log\"?");
  }
}

// p - lr lr_scale (wd p + g / (|g| + eps)): the first step in closed form.
TEST(Groups, TheStepUsesThem) {
  const test::CpuContext ctx;
  const auto store = make_store(), before = make_store();
  const OptimConfig c = read("{match: '*.A_log', weight_decay: 0.4, lr_scale: 0.25}");
  Optimizer optimizer(c, *store);
  StepState state{.step = 1, .lr = 0.125f};
  optimizer.clip(ctx, &state);
  optimizer.step(ctx, &state);
  for (size_t i = 0; i < 3; ++i)
    for (int64_t k = 0; k < 4; ++k) {
      const double p = element(before->shards()[i].master, k),
                   g = element(before->shards()[i].grad, k);
      const double decay = i == 0 ? 0.4 : 0.1, lr = i == 0 ? 0.125 / 4 : 0.125;
      EXPECT_NEAR(element(store->shards()[i].master, k),
                  p - lr * (decay * p + g / (std::abs(g) + c.eps)), 1e-14);
    }
  const std::string table = optimizer.table();
  EXPECT_NE(table.find("   1 tensors          4 elements  weight decay 0.4  lr x 0.25  "
                       "groups[0] *.A_log\n"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("adamw has 3 tensors, 12 elements\n"), std::string::npos) << table;
}

}  // namespace
}  // namespace sluice
