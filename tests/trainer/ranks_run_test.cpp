// tests/trainer/ranks_run_test.cpp -- runs of several ranks against a run of one: 20 steps of the
// same config.
//
// The same batch cut elsewhere is added up in another order. In f32 that is a rounding error of the
// gradients, 1e-6 of their norm or so, which Adam's first steps (a sign, nearly) and twenty steps
// of training enlarge; sharded_steps_test.cpp does the same in f64, where 1e-12 is left of it.
#include <fmt/format.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "kernels/comm/local_comm.h"
#include "tests/support/tiny_run.h"

namespace sluice::test {
namespace {

constexpr double kLossTolerance = 2e-4;    // nats, of about 3
constexpr double kNormTolerance = 1e-2;    // of the norm; a replica that counts twice is 0.4
constexpr double kWeightTolerance = 2e-3;  // of the largest weight of a tensor
// Where the sequence is cut, chunks of KDA begin elsewhere and states go through a product more:
// the rounding of each token is another one, not that of sums over tokens alone.
constexpr double kPieces = 5;

struct Result {
  std::vector<double> losses, norms;  // by step
  std::map<std::string, std::vector<float>> weights;
  std::map<std::string, double> valid;  // the last ones
};

class RanksRun : public TinyRun {
 protected:
  Config config_of(const std::string& name, const ParallelConfig& parallel = {}) const {
    Config c = config(name);
    c.train.steps = 20;
    c.train.batch_tokens = 96 * 8;
    c.train.micro_batch_tokens = 96;
    c.train.validate_every_steps = 10;
    c.checkpoint.every_steps = 1000;
    c.metrics.tensorboard = false;
    c.parallel = parallel;
    return c;
  }

  Result run(const Config& c, int ranks) const {
    Result result;
    std::mutex mutex;
    LocalGroup(ranks).run([&](Comm& world) {
      Trainer trainer(c, Trainer::Folder::any, &world);
      EXPECT_EQ(trainer.run(), ExitCode::done);
      const std::lock_guard lock(mutex);
      for (const Shard& s : trainer.params().shards()) {
        const ParamSpec& spec = trainer.params().spec(s.id);
        std::vector<float>& all = result.weights[spec.name];
        all.resize(size_t(spec.numel()));
        std::copy_n(s.master.as<float>(), s.master.numel(), all.begin() + s.begin);
      }
    });
    std::ifstream in(c.run.dir + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j["event"] == "train") {
        result.losses.push_back(j["loss"]);
        result.norms.push_back(j["grad_norm"]);
      }
      if (j["event"] == "valid.v") result.valid["loss"] = j["loss"];
    }
    EXPECT_EQ(result.losses.size(), size_t(c.train.steps));
    return result;
  }

  static double worst(const std::vector<double>& a, const std::vector<double>& b) {
    double w = 0;
    for (size_t i = 0; i < a.size(); ++i) w = std::max(w, std::abs(a[i] - b.at(i)));
    return w;
  }

  static double worst_share(const std::vector<double>& a, const std::vector<double>& b) {
    double w = 0;
    for (size_t i = 0; i < a.size(); ++i) w = std::max(w, std::abs(a[i] / b.at(i) - 1));
    return w;
  }

  static void expect_close(const Result& got, const Result& want, const std::string& name,
                           double times = 1) {
    EXPECT_LT(worst(got.losses, want.losses), times * kLossTolerance) << name;
    EXPECT_LT(worst_share(got.norms, want.norms), times * kNormTolerance) << name;
    EXPECT_LT(std::abs(got.valid.at("loss") - want.valid.at("loss")), times * kLossTolerance)
        << name;
    double weights = 0;
    for (const auto& [tensor, w] : want.weights) {
      float scale = 0, difference = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        scale = std::max(scale, std::abs(w[i]));
        difference = std::max(difference, std::abs(w[i] - got.weights.at(tensor).at(i)));
      }
      weights = std::max(weights, double(difference / scale));
      EXPECT_LT(difference, kWeightTolerance * scale) << name << ", " << tensor;
    }
    std::cout << fmt::format(
        "{:<28} losses within {:.1e}, norms {:.1e}, validation {:.1e}, weights {:.1e}\n", name,
        worst(got.losses, want.losses), worst_share(got.norms, want.norms),
        std::abs(got.valid.at("loss") - want.valid.at("loss")), weights);
  }
};

TEST_F(RanksRun, TwentyStepsAreThoseOfOneRank) {
  const Result want = run(config_of("one"), 1);
  for (const int ranks : {2, 3, 4, 8})
    expect_close(run(config_of(cat("fsdp_", ranks)), ranks), want, cat("fsdp ", ranks));
  expect_close(run(config_of("hsdp", {.data_replicate = 2}), 4), want, "hsdp 2x2");
  expect_close(run(config_of("kept", {.reshard_after_forward = false}), 2), want, "fsdp 2, kept");
  expect_close(run(config_of("whole", {.unsharded_gradients = true}), 2), want,
               "fsdp 2, unsharded gradients");
  expect_close(run(config_of("cp_2", {.context = 2}), 2), want, "cp 2", kPieces);
  expect_close(run(config_of("fsdp_2_cp_2", {.context = 2}), 4), want, "fsdp 2, cp 2", kPieces);
}

TEST_F(RanksRun, EqualRunsGiveEqualBits) {
  for (const ParallelConfig& p : {ParallelConfig{}, ParallelConfig{.data_replicate = 2}}) {
    Config c = config_of(cat("a", p.data_replicate), p);
    c.model = tiny_moe_config();
    c.model.tie_word_embeddings = true;
    c.model.vocab_size.reset();
    const Result a = run(c, 4);
    c.run.dir = dir_ / cat("b", p.data_replicate);
    const Result b = run(c, 4);
    EXPECT_EQ(a.losses, b.losses);
    EXPECT_EQ(a.norms, b.norms);
    EXPECT_EQ(a.weights, b.weights);
    EXPECT_EQ(a.valid, b.valid);
    // When weights travel changes no bit either.
    c.run.dir = dir_ / cat("c", p.data_replicate);
    c.parallel.reshard_after_forward = false;
    EXPECT_EQ(run(c, 4).weights, a.weights);
  }
}

// One rank reads the rare token, whose embedding is NaN: all skip, say who found it where, and go
// on from the same weights.
TEST_F(RanksRun, ABadNumberOnOneRankIsSkippedByAll) {
  Config c = config_of("bad");
  c.train.steps = 12;
  ::testing::internal::CaptureStdout();
  int64_t skipped = 0;
  std::map<std::string, std::string> weights;  // by rank and state
  std::mutex mutex;
  LocalGroup(4).run([&](Comm& world) {
    Trainer t(c, Trainer::Folder::any, &world);
    const Shard& s = t.params().shards()[size_t(t.params().find("embedding.weight").index)];
    const int64_t element = int64_t(kRareToken) * t.params().spec(s.id).shape[1] - s.begin;
    const bool mine = element >= 0 && element < s.master.numel();
    float* const at = mine ? s.master.as<float>() + element : nullptr;
    const auto bits = [&] {
      std::string all;
      for (const Shard& x : t.params().shards())
        all.append(reinterpret_cast<const char*>(x.master.data), size_t(x.master.bytes()));
      return all;
    };
    for (int step = 0; step < 12; ++step) {
      const float was = mine ? *at : 0;
      if (mine) *at = NAN;
      t.params().refresh({});
      const std::string before = bits();
      t.train_step();
      const bool same = before == bits();
      if (mine && same) *at = was;
      if (mine && !same) *at = was;  // its gradient was zero: nobody had read it
      const std::lock_guard lock(mutex);
      skipped += same;
      weights[cat(step)] += same ? "s" : "u";
    }
  });
  const std::string out = ::testing::internal::GetCapturedStdout();
  for (const auto& [step, who] : weights)
    EXPECT_TRUE(who == "ssss" || who == "uuuu") << "step " << step << ": " << who;
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 12 * 4);
  const size_t at = out.find("SKIPPED");
  ASSERT_NE(at, std::string::npos) << out;
  std::cout << out.substr(at, 160) << "\n";
  EXPECT_NE(out.find("rank ", at), std::string::npos);
  EXPECT_NE(out.find("embedding: output", at), std::string::npos);
}

TEST_F(RanksRun, RanksWithAnotherConfigAreNamed) {
  std::string message;
  try {
    LocalGroup(3).run([&](Comm& world) {
      Config c = config_of("other");
      if (world.rank() == 1) c.optim.lr *= 2;
      Trainer t(c, Trainer::Folder::any, &world);
    });
  } catch (const Error& e) {
    message = e.what();
  }
  EXPECT_NE(message.find("rank 1 has optim.lr: "), std::string::npos) << message;
}

}  // namespace
}  // namespace sluice::test
