// tests/trainer/resume_test.cpp -- 40 steps straight against 20 steps, SIGKILL at a random moment,
// and the same command again; and one thread against two: the same bits.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"
#include "trainer/loop/compare.h"
#include "trainer/loop/trainer.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class Resume : public ::testing::Test {
 protected:
  Resume() : dir_(fs::temp_directory_path() / ("sluice_resume_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
    const Tokenizer tokenizer(BpeTraining{}, "gpt2");  // bytes
    tokenizer.save(dir_ / "tokenizer.json");
    ShardInfo info{.vocab_size = tokenizer.vocab_size(),
                   .end_of_text = tokenizer.end_of_text(),
                   .tokenizer = tokenizer.fingerprint()};
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
      info.token_bytes.push_back(uint32_t(tokenizer.token_bytes(id).size()));
    for (const char* name : {"train.h5", "valid.h5"}) {
      ShardWriter writer(dir_ / name, info);
      for (uint64_t d = 0; d < 60; ++d) {
        std::vector<int32_t> text;
        for (uint64_t i = 0; i < 20 + 13 * d % 400; ++i)
          text.push_back(int32_t(97 + (random_u64(d, i) % 5 + i % 7) % 26));
        writer.add_document(text);
      }
      writer.finish();
    }
  }
  ~Resume() override { fs::remove_all(dir_); }

  Config config(const std::string& run, int64_t threads) const {
    Config c;
    c.run.dir = dir_ / run;
    c.run.threads = threads;
    c.model = test::tiny_config();
    c.model.vocab_size.reset();
    c.data.tokenizer = dir_ / "tokenizer.json";
    c.data.train = {{.path = dir_ / "train.h5", .weight = 1, .max_epochs = 100}};
    c.data.validation = {{"v", dir_ / "valid.h5"}};
    c.data.seq_len_tokens = 96;
    c.train.steps = 40;
    c.train.batch_tokens = 96 * 6;
    c.train.micro_batch_tokens = 96 * 2;
    c.train.validate_every_steps = 10;
    c.optim.schedule.warmup_steps = 5;
    c.optim.schedule.decay_steps = 10;
    c.checkpoint.every_steps = 7;
    return c;
  }
  // Runs the trainer in a child, which is killed after `kill_after_ms` (0: never). True if it
  // finished.
  bool run_child(const Config& c, int kill_after_ms) const {
    const pid_t child = fork();
    if (child == 0) {
      if (!freopen("/dev/null", "w", stdout)) _exit(3);
      try {
        Trainer(c).run();
      } catch (const std::exception& e) {
        fprintf(stderr, "%s\n", e.what());
        _exit(2);
      }
      _exit(0);
    }
    if (kill_after_ms > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(kill_after_ms));
      kill(child, SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << status;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  fs::path dir_;
};

TEST_F(Resume, KilledAtRandomMomentsGivesTheSameBits) {
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(run_child(config("straight", 2), 0));
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(
                         std::chrono::steady_clock::now() - begin)
                         .count();
  std::mt19937 rng(std::random_device{}());  // another moment each time: any must do
  int kills = 0;
  while (!run_child(config("killed", 2),
                    kills < 6 ? 1 + int(rng() % unsigned(std::max<long>(2, whole))) : 0))
    ++kills;
  std::cout << kills << " kills\n";
  for (const std::string& d : compare_runs(dir_ / "straight", dir_ / "killed")) ADD_FAILURE() << d;
}

TEST_F(Resume, OneThreadEqualsTwo) {
  ASSERT_TRUE(run_child(config("one", 1), 0));
  ASSERT_TRUE(run_child(config("two", 2), 0));
  for (const std::string& d : compare_runs(dir_ / "one", dir_ / "two")) ADD_FAILURE() << d;
}

TEST_F(Resume, AnotherModelIsRefusedByName) {
  Config c = config("run", 1);
  c.train.steps = 7;
  ASSERT_TRUE(run_child(c, 0));
  c.model.hidden_size = 48;
  try {
    Trainer t(c);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("model.hidden_size: was 24, is 48"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace sluice
