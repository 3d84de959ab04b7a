// tests/trainer/ranks_resume_test.cpp -- runs of several ranks that stop and go on: on as many
// ranks with the same bits, on others with the same data; and what goes wrong on one of them.
#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>

#include "kernels/comm/local_comm.h"
#include "model/export/posix_file.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/tensors.h"
#include "trainer/loop/compare.h"

namespace sluice::test {
namespace {

using Body = std::function<ExitCode(Trainer&, int rank)>;

class RanksResume : public TinyRun {
 protected:
  Config config_of(const std::string& name) const {
    Config c = config(name);
    c.model = tiny_moe_config();
    c.model.vocab_size.reset();
    c.train.steps = 14;
    c.train.batch_tokens = 96 * 8;
    c.train.micro_batch_tokens = 96;
    c.train.validate_every_steps = 1000;
    c.checkpoint.every_steps = 4;
    c.checkpoint.keep_last = 100;
    return c;
  }
  // What rank 0 prints is in printed_; the error of the run, if it has one, is returned.
  std::string run(const std::function<Config(int rank)>& config, int ranks, const Body& body) {
    ::testing::internal::CaptureStdout();
    std::string error;
    try {
      LocalGroup(ranks).run([&](Comm& world) {
        Trainer t(config(world.rank()), Trainer::Folder::any, &world);
        body(t, world.rank());
      });
    } catch (const Error& e) {
      error = e.what();
    }
    printed_ = ::testing::internal::GetCapturedStdout();
    return error;
  }
  std::string run(const Config& c, int ranks, const Body& body = to_the_end) {
    return run([&](int) { return c; }, ranks, body);
  }
  static ExitCode to_the_end(Trainer& t, int) { return t.run(); }
  static ExitCode eight_steps(Trainer& t, int) {
    while (t.step() < 8) t.train_step();
    t.save();
    return ExitCode::requeue;
  }
  bool printed(const std::string& text) const { return printed_.find(text) != std::string::npos; }

  static std::vector<double> losses(const Config& c) {
    std::vector<double> all(size_t(c.train.steps), NAN);
    std::ifstream in(c.run.dir + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j["event"] == "train") all.at(size_t(j["step"]) - 1) = j["loss"];
    }
    return all;
  }
  void copy_run(const Config& from, const Config& to) const {
    std::filesystem::copy(from.run.dir, to.run.dir, std::filesystem::copy_options::recursive);
  }

  std::string printed_;
};

TEST_F(RanksResume, AsManyRanksGoOnWithTheSameBits) {
  for (const bool async : {true, false}) {
    Config straight = config_of(cat("straight", async)), c = config_of(cat("broken", async));
    straight.checkpoint.async = c.checkpoint.async = async;
    ASSERT_EQ(run(straight, 4), "");
    EXPECT_TRUE(printed("saved    ")) << printed_;
    ASSERT_EQ(run(c, 4, eight_steps), "");
    ASSERT_EQ(run(c, 4), "");
    EXPECT_TRUE(printed("step-00000008 (bitwise)")) << printed_;
    for (const std::string& d : compare_runs(straight.run.dir, c.run.dir)) ADD_FAILURE() << d;
  }
}

// The same tokens in the same order: a loss of other rows would be off by 0.1 or so. What
// remains is the order of sums.
TEST_F(RanksResume, OtherRanksGoOnWithTheSameData) {
  const Config straight = config_of("straight");
  ASSERT_EQ(run(straight, 4), "");
  const std::vector<double> want = losses(straight);
  const Config half = config_of("half");
  ASSERT_EQ(run(half, 4, eight_steps), "");
  struct Other {
    int ranks;
    ParallelConfig parallel;
  };
  for (const Other& o : {Other{1, {}}, Other{2, {}}, Other{3, {}}, Other{8, {}},
                         Other{4, {.data_replicate = 2}}, Other{4, {.data_replicate = 4}}}) {
    Config c = config_of(cat("on_", o.ranks, "_", o.parallel.data_replicate));
    c.parallel = o.parallel;
    copy_run(half, c);
    ASSERT_EQ(run(c, o.ranks), "") << printed_;
    EXPECT_TRUE(printed("step-00000008 (not bitwise:")) << printed_;
    const std::vector<double> got = losses(c);
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
    EXPECT_LT(worst, 2e-4) << o.ranks;
    std::cout << fmt::format("4 ranks -> {} ranks, {} replicas: losses within {:.1e}\n", o.ranks,
                             o.parallel.data_replicate, worst);
    // What was loaded is what had been saved: saved again at once, every byte is equal.
    Config again = config_of(c.run.dir.substr(c.run.dir.rfind('/') + 1) + "_again");
    again.parallel = o.parallel;
    copy_run(half, again);
    ASSERT_EQ(run(again, o.ranks, [](Trainer& t, int) { return t.save(), ExitCode::done; }), "");
    const CheckpointRef a{half.run.dir + "/checkpoints/step-00000008", 8},
        b{again.run.dir + "/checkpoints/step-00000008", 8};
    for (const Part part : {Part::weights, Part::optimizer}) {
      const CheckpointTensors ta(a, part), tb(b, part);
      ASSERT_EQ(ta.entries().size(), tb.entries().size());
      for (const SafetensorsEntry& e : ta.entries())
        EXPECT_EQ(ta.crc32(e.name), tb.crc32(e.name)) << e.name;
    }
  }
}

TEST_F(RanksResume, ARankWithAnotherConfigIsNamed) {
  const auto config = [&](int rank) {
    Config c = config_of("run");
    if (rank == 2) c.optim.lr *= 2;
    return c;
  };
  const std::string error = run(config, 4, to_the_end);
  EXPECT_NE(error.find("rank 2 has optim.lr: "), std::string::npos) << error;
  EXPECT_NE(error.find(", rank 0 has "), std::string::npos) << error;
  EXPECT_FALSE(std::filesystem::exists(config_of("run").run.dir + "/metrics.jsonl"));
}

int64_t full_on_rank_1_at_8(DiskCall call, const std::string& path, int64_t bytes) {
  if (call != DiskCall::write || path.find(".tmp-step-00000008") == std::string::npos ||
      path.find("-00001-of-") == std::string::npos)
    return bytes;
  errno = ENOSPC;
  return -1;
}
int64_t full_on_rank_1(DiskCall call, const std::string& path, int64_t bytes) {
  if (call != DiskCall::write || path.find("-00001-of-") == std::string::npos) return bytes;
  errno = ENOSPC;
  return -1;
}

TEST_F(RanksResume, ADiskFullOnOneRank) {
  const Config c = config_of("once"), straight = config_of("straight");
  set_disk_hook(full_on_rank_1_at_8);
  const std::string once = run(c, 3);
  set_disk_hook(nullptr);
  EXPECT_EQ(once, "");
  EXPECT_TRUE(printed("SAVE FAILED  step 8, 1 in a row: rank 1: ")) << printed_;
  EXPECT_TRUE(printed("No space left")) << printed_;
  EXPECT_FALSE(std::filesystem::exists(c.run.dir + "/checkpoints/step-00000008"));
  EXPECT_FALSE(std::filesystem::exists(c.run.dir + "/checkpoints/.tmp-step-00000008"));
  ASSERT_EQ(run(straight, 3), "");
  for (const std::string& d : compare_runs(straight.run.dir, c.run.dir)) ADD_FAILURE() << d;

  const Config thrice = config_of("thrice");
  set_disk_hook(full_on_rank_1);
  const std::string error = run(thrice, 3);
  set_disk_hook(nullptr);
  EXPECT_NE(error.find("3 saves in a row failed"), std::string::npos) << error << printed_;
}

// The embedding of a token that one row has: only the rank that reads it makes a NaN.
TEST_F(RanksResume, ANanOnOneRankIsSkippedByAll) {
  const Config c = config_of("nan");
  const auto poisoned = [](Trainer& t, int) {
    const Shard& s = t.params().shards()[size_t(t.params().find("embedding.weight").index)];
    const int64_t at = int64_t(kRareToken) * t.params().spec(s.id).shape[1] - s.begin;
    const bool mine = at >= 0 && at < s.master.numel();
    while (t.step() < 14) {
      const float was = mine ? s.master.as<float>()[at] : 0;
      if (mine) s.master.as<float>()[at] = NAN;
      t.train_step();
      if (mine) s.master.as<float>()[at] = was;
    }
    return ExitCode::done;
  };
  ASSERT_EQ(run(c, 4, poisoned), "");
  EXPECT_TRUE(printed("SKIPPED  step ")) << printed_;
  EXPECT_TRUE(printed("not finite: micro-batch 0: rank ")) << printed_;
  int64_t skipped = 0, trained = 0;
  std::ifstream in(c.run.dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line);
    if (j["event"] == "train") (j["skipped"] == 1 ? skipped : trained) += 1;
  }
  EXPECT_GT(skipped, 0);
  EXPECT_GT(trained, 0);
  std::cout << skipped << " steps skipped, " << trained << " not\n";
}

}  // namespace
}  // namespace sluice::test
