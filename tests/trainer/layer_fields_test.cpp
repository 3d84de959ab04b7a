// tests/trainer/layer_fields_test.cpp -- the event "layers" of a run.
#include "trainer/loop/layer_fields.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/tiny_run.h"
#include "trainer/loop/compare.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

class Layers : public test::TinyRun {
 protected:
  std::vector<Json> records(const Config& c) const {
    std::istringstream lines(read(c.run.dir + "/metrics.jsonl"));
    std::vector<Json> found;
    for (std::string line; std::getline(lines, line);)
      if (Json j = Json::parse(line); j["event"] == "layers") found.push_back(std::move(j));
    return found;
  }
};

TEST_F(Layers, EachValidationWritesThemAndTrainingStaysAsItIs) {
  Config c = config("run");
  c.model = test::tiny_moe_config();
  c.model.vocab_size.reset();
  run_to_the_end(c);
  const std::vector<Json> found = records(c);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0]["step"], 12);
  EXPECT_EQ(found[1]["step"], 24);
  std::set<std::string> names, want{"event", "step", "layers.3.max_attention_logit"};
  for (const auto& [key, value] : found[1].items()) {
    names.insert(key);
    if (key != "event") {
      EXPECT_TRUE(value.is_number()) << key << " " << value;
    }
  }
  for (const char* layer : {"layers.0.", "layers.1.", "layers.2."})
    for (const char* field : {"decay_half_life_p10", "decay_half_life_p50", "decay_half_life_p90",
                              "beta_mean", "state_norm"})
      want.insert(std::string(layer) + field);
  for (const char* layer : {"layers.1.", "layers.2.", "layers.3."})
    want.insert(std::string(layer) + "expert_load");
  EXPECT_EQ(names, want);
  const double beta = found[1]["layers.0.beta_mean"], load = found[1]["layers.1.expert_load"];
  EXPECT_GT(beta, 0.05);
  EXPECT_LT(beta, 0.95);
  EXPECT_GE(load, 1);
  EXPECT_LE(load, 3);  // 6 experts, 2 of them chosen
  EXPECT_NE(found[0]["layers.0.state_norm"], found[1]["layers.0.state_norm"]);

  Config often = c;  // the weights are the same bits, and so are the figures
  often.run.dir = dir_ / "often";
  often.run.threads = 2;
  often.train.validate_every_steps = 1;
  run_to_the_end(often);
  const std::vector<Json> all = records(often);
  ASSERT_EQ(all.size(), 24u);
  EXPECT_EQ(all[11], found[0]);
  EXPECT_EQ(all[23], found[1]);
  for (const std::string& difference : compare_runs(c.run.dir, often.run.dir))
    EXPECT_NE(difference.find("metrics.jsonl"), std::string::npos) << difference;
}

// Empty documents have states, too.
TEST(LayersOfABatch, TheProbesMemoryIsPlanned) {
  std::vector<int64_t> lengths(3000, 0);
  lengths.back() = 8;
  const test::Documents docs(lengths);
  const LmBatch batch = docs.batch();
  const MicroBatch micro{batch.tokens, batch.targets, batch.sequences.cu_seqlens, 8};
  PlainStore params(DType::f32);
  const Lm lm(test::tiny_config(), params);
  params.allocate();
  initialize(params, 1);
  StepRunner runner({}, params, lm, Recompute::none, 0);
  const int64_t planned = runner.plan(micro);
  Arena arena(Device::cpu, planned);
  runner.use(arena);
  LayerProbe probe;
  StepStats stats(params);
  stats.start_step({});
  runner.probe(micro, probe, stats);
  EXPECT_GT(arena.peak(), 3000 * 4 * 8 * 8 * 4);
  EXPECT_EQ(layer_fields(params, probe, stats).size(), 3u * 5 + 1);
}

}  // namespace
}  // namespace sluice
