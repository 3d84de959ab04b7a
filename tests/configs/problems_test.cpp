// tests/configs/problems_test.cpp -- wrong files for `sluice train`, with every word of what is
// said.
#include <cstdio>

#include "configs/schema.h"
#include "tests/support/message.h"
#include "trainer/loop/config.h"

namespace sluice::test {
namespace {

struct Wrong {
  const char* what;
  std::string yaml;
  std::vector<std::string> set;
  std::string message;
};

TEST(TrainConfig, WrongFilesAndWhatIsSaid) {
  const Wrong files[] = {
      {"an unknown key",
       "model:\n  hiden_size: 160\n",
       {},
       "c.yaml:2:3: model.hiden_size: unknown key; did you mean \"hidden_size\"?"},
      {"a key given twice",
       "optim:\n  lr: 1e-3\n  weight_decay: 0.1\n  lr: 2e-3\n",
       {},
       "c.yaml:4:3: optim.lr: given twice (first at line 2)"},
      {"another type",
       "train: {steps: many}\n",
       {},
       "c.yaml:1:16: train.steps: expected a count above 0, got \"many\""},
      {"out of range",
       "model: {kda: {head_dim: 0}}\n",
       {},
       "c.yaml:1:25: model.kda.head_dim: expected a count above 0, got \"0\""},
      {"out of range in a list",
       "data:\n  train:\n    - {path: a.h5}\n    - {path: b.h5, weight: -1}\n",
       {},
       "c.yaml:4:28: data.train[1].weight: expected a number above 0, got \"-1\""},
      {"an unknown mixer",
       "model:\n  num_hidden_layers: 2\n  layers: [kda, mlaa]\n",
       {},
       "c.yaml:3:11: model.layers: expected one of kda, gdn, mamba2, mla, identity, got \"mlaa\"; "
       "did you mean "
       "\"mla\"?"},
      {"a tab", "model:\n\thidden_size: 160\n", {}, "c.yaml:2:1: expected spaces, got a tab"},
      {"an open quote",
       "run:\n  name: \"quickstart\n  seed: 1\n",
       {},
       "c.yaml:2:9: a quote that is never closed"},
      {"no ratio",
       "model: {ratio: 3-1}\n",
       {},
       "c.yaml:1:16: model.ratio: expected two counts linear:full, not both 0, as in \"3:1\", got "
       "\"3-1\""},
      {"a ratio of more layers",
       "model: {num_hidden_layers: 8, ratio: \"15:1\"}\n",
       {},
       "c.yaml:1:38: model.ratio: expected a ratio whose period fits num_hidden_layers (8), got "
       "\"15:1\", "
       "which needs 16"},
      {"--set",
       "",
       {"model.ratio=7;1", "optim.lr=0", "trian.steps=3", "model.kda"},
       "--set model.kda: expected section.key=value\n"
       "--set model.ratio=7;1: model.ratio: expected two counts linear:full, not both 0, as in "
       "\"3:1\", got "
       "\"7;1\"\n--set optim.lr=0: optim.lr: expected a number above 0, got \"0\"\n"
       "--set trian.steps=3: trian: unknown key; did you mean \"train\"?"},
      {"all at once",
       "model: {ratio: 1:0:0, hidden_size: 0}\ntrain: {recompute: full}\nruns: {}\n",
       {},
       "c.yaml:1:16: model.ratio: expected two counts linear:full, not both 0, as in \"3:1\", got "
       "\"1:0:0\"\n"
       "c.yaml:1:36: model.hidden_size: expected a count above 0, got \"0\"\n"
       "c.yaml:2:20: train.recompute: expected none, selective or block, got \"full\"\n"
       "c.yaml:3:1: runs: unknown key; did you mean \"run\"?"},
  };
  for (const Wrong& w : files)
    EXPECT_EQ(error_of([&] { config::load_string<Config>(w.yaml, "c.yaml", w.set); }), w.message)
        << w.what;
}

}  // namespace
}  // namespace sluice::test
