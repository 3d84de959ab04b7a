// tests/trainer/inspect_test.cpp -- what `sluice inspect` says of a run, of a broken one, of
// nothing.
#include "trainer/loop/inspect.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "tests/trainer/checkpoint_case.h"
#include "trainer/loop/config.h"

namespace sluice {
namespace {

using namespace test;

class Inspect : public CheckpointTest {
 protected:
  Inspect() : CheckpointTest(quick_folder()) {
    Config config;
    config.optim.lr = 0.5;
    config.checkpoint.keep_every_steps = 2;
    for (const int64_t step : {1, 2}) {
      state_.set(step);
      state_.w.view().as<float>()[0] = 100;  // the largest
      CheckpointMeta meta = meta_of(step);
      meta.config_yaml = config::print(config);
      save_checkpoint(run_, meta, state_.weights(), state_.optimizer(), {});
    }
  }
  State state_;
};

TEST_F(Inspect, ARun) {
  int64_t read = 0, all = 0;
  const auto report = inspect(run_, {.progress = [&](int64_t done, int64_t of) {
                                EXPECT_GE(done, read);
                                read = done;
                                all = of;
                              }});
  EXPECT_GT(all, 0);
  EXPECT_EQ(read, all);
  const auto& list = report.at("run").at("checkpoints");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].at("step"), 2);
  EXPECT_EQ(list[0].at("milestone"), true);
  EXPECT_EQ(list[1].at("milestone"), false);
  EXPECT_EQ(list[1].at("state"), "valid");
  const auto& c = report.at("checkpoint");
  EXPECT_EQ(c.at("step"), 2);
  EXPECT_EQ(c.at("fingerprint").at("isa"), "avx2");
  EXPECT_EQ(c.at("config")[0].at("key"), "optim.lr");
  EXPECT_EQ(c.at("config")[0].at("value"), "0.5");
  double squares = 0;
  for (int64_t i = 0; i < 33 * 7; ++i)
    squares += std::pow(double(state_.w.view().as<float>()[i]), 2);
  for (const auto& t : c.at("weights").at("tensors")) {
    EXPECT_EQ(t.at("checksum"), "right");
    EXPECT_EQ(t.at("nonfinite"), 0);
    if (t.at("name") == "b") {
      EXPECT_TRUE(t.at("max").is_null());  // it has no elements
      continue;
    }
    EXPECT_EQ(t.at("type"), "f32 [33, 7]");
    EXPECT_EQ(t.at("max"), 100.0);
    EXPECT_DOUBLE_EQ(t.at("norm"), std::sqrt(squares));
  }
  EXPECT_EQ(c.at("optimizer").at("elements"), 33 * 7);
  expect_in(inspect_text(report),
            {"every checksum is right", "2  ", "milestone", "optim.lr", "(default 0.002)", "w.m"});
}

TEST_F(Inspect, ABrokenOneIsShownAsFarAsItGoes) {
  const std::string weights = file(2, "weights.safetensors");
  flip_byte(weights, int64_t(fs::file_size(weights)) - 3);
  auto report = inspect(parent_of(weights), {});
  EXPECT_TRUE(report.at("run").is_null());
  EXPECT_EQ(report.at("checkpoint").at("state"), "broken");
  expect_in(inspect_text(report), {"BROKEN ", "expected crc32", "checksum WRONG"});

  fs::remove(file(2, "manifest.json"));
  report = inspect(parent_of(weights), {});
  expect_in(inspect_text(report), {"manifest.json: open", "checksum not in the manifest", "w.m"});
  fs::resize_file(weights, 9);
  expect_in(inspect_text(inspect(parent_of(weights), {})), {"weights: 0 tensors", "BROKEN", "w.m"});

  report = inspect(run_, {});  // of the run, the newest intact one
  EXPECT_EQ(report.at("checkpoint").at("step"), 1);
  EXPECT_EQ(report.at("run").at("checkpoints")[0].at("state"), "broken");
  expect_in(message_of([&] { inspect(base_, {}); }), {base_ + ": no checkpoint here"});
}

}  // namespace
}  // namespace sluice
