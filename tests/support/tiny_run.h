// tests/support/tiny_run.h -- runs of a tiny model on made-up text, in child processes that may be
// killed.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/loop/trainer.h"

namespace sluice::test {

class TinyRun : public ::testing::Test {
 protected:
  TinyRun()
      : dir_(std::filesystem::temp_directory_path() / ("sluice_run_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(dir_);
    tokenizer_.save(dir_ / "tokenizer.json");
    write_shard("train.h5", 60);
    write_shard("valid.h5", 6);
  }
  ~TinyRun() override { std::filesystem::remove_all(dir_); }

  // Documents of the letters a to k; the 31st has a z.
  void write_shard(const std::string& name, uint64_t documents) const {
    ShardInfo info{.vocab_size = tokenizer_.vocab_size(),
                   .end_of_text = tokenizer_.end_of_text(),
                   .tokenizer = tokenizer_.fingerprint()};
    for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id)
      info.token_bytes.push_back(uint32_t(tokenizer_.token_bytes(id).size()));
    ShardWriter writer(dir_ / name, info);
    for (uint64_t d = 0; d < documents; ++d) {
      std::vector<int32_t> text;
      for (uint64_t i = 0; i < 20 + 13 * d % 400; ++i)
        text.push_back(int32_t(97 + (random_u64(d, i) % 5 + i % 7) % 26));
      if (d == 30) text[10] = kRareToken;
      writer.add_document(text);
    }
    writer.finish();
  }
  static constexpr int32_t kRareToken = 'z';

  // 24 steps of 3 rows of 96 tokens, a checkpoint every 7.
  Config config(const std::string& run, int64_t threads = 1) const {
    Config c;
    c.run.dir = dir_ / run;
    c.run.threads = threads;
    c.model = tiny_config();
    c.model.vocab_size.reset();
    c.data.tokenizer = dir_ / "tokenizer.json";
    c.data.train = {{.path = dir_ / "train.h5", .weight = 1, .max_epochs = 100}};
    c.data.validation = {{"v", dir_ / "valid.h5"}};
    c.data.seq_len_tokens = 96;
    c.train.steps = 24;
    c.train.batch_tokens = 96 * 3;  // the second micro-batch is half padding
    c.train.micro_batch_tokens = 96 * 2;
    c.train.validate_every_steps = 12;
    c.optim.schedule.warmup_steps = 5;
    c.optim.schedule.decay_steps = 6;
    c.checkpoint.every_steps = 7;
    return c;
  }

  using Training = std::function<ExitCode(Trainer&)>;
  static ExitCode whole_run(Trainer& t) { return t.run(); }

  // Runs the trainer in a child; what it prints goes to RUN.log. Its wait status.
  int run_child(const Config& c, const std::function<void(pid_t)>& meanwhile = {},
                const Training& train = whole_run) const {
    fflush(nullptr);  // what is buffered would be printed by both
    const pid_t child = fork();
    if (child == 0) {
      if (!freopen((c.run.dir + ".log").c_str(), "w", stdout)) _exit(99);
      try {
        ExitCode code = ExitCode::done;
        {
          Trainer t(c);
          code = train(t);
        }
        _exit(int(code));
      } catch (const ExitError& e) {
        fprintf(stderr, "%s\n", e.what());
        _exit(int(e.code));
      } catch (const std::exception& e) {
        fprintf(stderr, "%s\n", e.what());
        _exit(1);
      }
    }
    if (meanwhile) meanwhile(child);
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  }
  void run_to_the_end(const Config& c, const Training& train = whole_run) const {
    EXPECT_EQ(run_child(c, {}, train), 0) << log(c);
  }
  // Killed as soon as the checkpoint of `step` is there, and then once more to the end.
  void run_killed_after(int64_t step, const Config& c, const Training& train = whole_run) const {
    const int status = run_child(
        c,
        [&](pid_t child) {
          wait_for_step(c, step);
          kill(child, SIGKILL);
        },
        train);
    EXPECT_TRUE(WIFSIGNALED(status)) << "it was faster than the kill: " << status;
    run_to_the_end(c, train);
  }
  static void wait_for_step(const Config& c, int64_t step) {
    const std::string folder = checkpoints_folder(c.run.dir) + "/" + step_name(step);
    for (int ms = 0; ms < 60000 && !std::filesystem::exists(folder); ++ms)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::string log(const Config& c) { return read(c.run.dir + ".log"); }

  // The text of the Error that a start gives.
  static std::string error_of(const Config& c, Trainer::Folder folder = Trainer::Folder::any) {
    ::testing::internal::CaptureStdout();
    std::string text = "no error";
    try {
      Trainer t(c, folder);
    } catch (const Error& e) {
      text = e.what();
    }
    ::testing::internal::GetCapturedStdout();
    return text;
  }

  std::filesystem::path dir_;
  const Tokenizer tokenizer_{BpeTraining{}, "gpt2"};  // bytes
};

}  // namespace sluice::test
