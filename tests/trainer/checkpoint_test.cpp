// tests/trainer/checkpoint_test.cpp -- round trips, loading, pruning, the lock, bad folders.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/trainer/checkpoint_case.h"

namespace sluice {
namespace {

using namespace test;
using Checkpoint = test::CheckpointTest;

TEST_F(Checkpoint, RoundTrip) {
  EXPECT_FALSE(find_newest_valid(run_, nullptr));
  const SaveResult result = save(run_, 400);
  EXPECT_EQ(result.saved.folder, root_ + "/step-00000400");
  EXPECT_TRUE(result.problems.empty());
  EXPECT_EQ(find(400), "");
  EXPECT_EQ(names().size(), 1u);
  EXPECT_TRUE(loads(result.saved, 400));

  const CheckpointMeta want = meta_of(400), got = load_meta(result.saved);
  EXPECT_EQ(got.config_yaml, want.config_yaml);
  EXPECT_EQ(got.fingerprint, want.fingerprint);
  EXPECT_EQ(got.integers, want.integers);
  EXPECT_EQ(got.numbers.at("loss"), 0.1);
  EXPECT_TRUE(std::isnan(got.numbers.at("best")));
  EXPECT_EQ(got.numbers.at("worst"), -INFINITY);
  EXPECT_EQ(read(result.saved.folder + "/config.yaml"), want.config_yaml);
}

TEST_F(Checkpoint, NoTensorsAndNoConfig) {
  const auto ref =
      save_checkpoint(
          run_, {.step = 0, .config_yaml = "", .fingerprint = {}, .integers = {}, .numbers = {}},
          {}, {}, {})
          .saved;
  EXPECT_EQ(find(0), "");
  load_tensors(ref, Part::optimizer, {});
  EXPECT_EQ(load_meta(ref).config_yaml, "");
}

TEST_F(Checkpoint, LoadingComparesNamesShapesAndBytes) {
  const CheckpointRef ref = save(run_, 3).saved;
  State state;
  std::vector<NamedTensor> into = state.weights();
  into[1].name = "c";
  expect_in(message_of([&] { load_tensors(ref, Part::weights, into); }),
            {"weights.safetensors", "1 missing in the file: 'c'", "1 in the file only: 'b'"});
  into = state.weights();
  into.pop_back();
  expect_in(message_of([&] { load_tensors(ref, Part::weights, into); }), {"file only: 'b'"});
  into.push_back(into[0]);
  expect_in(message_of([&] { load_tensors(ref, Part::weights, into); }), {"'w'", "twice"});
  State larger(34);
  expect_in(message_of([&] { load_tensors(ref, Part::weights, larger.weights()); }),
            {"'w'", "expected f32 [34, 7]", "the file has f32 [33, 7]"});
  into = {{"w.m", state.w.view()}};
  expect_in(message_of([&] { load_tensors(ref, Part::optimizer, into); }), {"f32", "f64"});
  flip_byte(file_of(ref, Part::weights), int64_t(fs::file_size(file_of(ref, Part::weights))) - 1);
  expect_in(message_of([&] { load_tensors(ref, Part::weights, state.weights()); }),
            {"tensor 'w': expected crc32"});
}

TEST_F(Checkpoint, ThePathsThatNameOne) {
  for (int64_t step : {3, 4, 5}) save(run_, step);
  const std::string newest = root_ + "/step-00000005", older = root_ + "/step-00000004";
  const auto found = [](const std::string& path) {
    std::vector<std::string> problems;
    const CheckpointRef ref = find_checkpoint(path, &problems);
    EXPECT_TRUE(loads(ref, ref.step)) << path;
    return cat(ref.folder, problems.empty() ? "" : " and problems");
  };
  for (const char* suffix : {"", "/", "/checkpoints", "/checkpoints/", "/checkpoints/latest"})
    EXPECT_EQ(found(run_ + suffix), newest) << suffix;
  EXPECT_EQ(found(older + "/"), older);
  fs::copy(older, base_ + "/best", fs::copy_options::recursive);
  EXPECT_EQ(found(base_ + "/best"), base_ + "/best");
  fs::create_directory_symlink(older, root_ + "/latest");  // somebody's own link, if there is one
  EXPECT_EQ(found(root_ + "/latest"), root_ + "/latest");
  fs::remove(root_ + "/latest");

  flip_byte(newest + "/weights.safetensors", 300);
  EXPECT_EQ(found(run_ + "/checkpoints/latest"), older + " and problems");
  expect_in(message_of([&] { find_checkpoint(newest, nullptr); }),
            {newest + ": this checkpoint is broken", "expected crc32"});
  expect_in(message_of([&] { find_checkpoint(base_, nullptr); }), {base_ + ": no checkpoint here"});
  for (const char* broken : {"/step-00000004", "/step-00000003"})
    fs::remove(root_ + broken + "/config.yaml");
  expect_in(message_of([&] { find_checkpoint(run_, nullptr); }),
            {"no intact checkpoint here", "step-00000003/config.yaml"});
}

TEST_F(Checkpoint, Retention) {
  for (int64_t step = 1; step <= 9; ++step) {
    save(run_, step, {.keep_last = 2, .keep_every_steps = 4});
    EXPECT_EQ(find(step), "");
  }
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000004", "step-00000008", "step-00000009"}));

  // A broken one does not count, so that keep_last good ones remain; it is left to be looked at.
  fs::remove(file(9, "manifest.json"));
  fs::create_directory(root_ + "/other");  // not ours
  save(run_, 10, {.keep_last = 2});
  EXPECT_EQ(names(),
            (std::vector<std::string>{"other", "step-00000008", "step-00000009", "step-00000010"}));
  // The one just saved stays, although there are newer ones.
  save(run_, 7, {.keep_last = 1});
  EXPECT_EQ(names(), (std::vector<std::string>{"other", "step-00000007", "step-00000010"}));
  EXPECT_THROW(save(run_, 11, {.keep_last = 0}), Error);
}

TEST_F(Checkpoint, TheSameStepIsReplaced) {
  save(run_, 5);
  State state;
  state.set(6);
  const auto ref = save_checkpoint(run_, meta_of(5), state.weights(), state.optimizer(), {}).saved;
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000005"}));
  State got;
  load_tensors(ref, Part::weights, got.weights());
  load_tensors(ref, Part::optimizer, got.optimizer());
  EXPECT_TRUE(got.is(6));
}

TEST_F(Checkpoint, LeftoversAreRemovedAndHalfReplacementsUndone) {
  save(run_, 5);
  save(run_, 6);
  fs::create_directories(root_ + "/.tmp-step-00000007");
  write(root_ + "/.tmp-step-00000007/weights.safetensors.partial", "half");
  fs::rename(root_ + "/step-00000006", root_ + "/step-00000006.replaced");
  fs::create_directory(root_ + "/step-00000005.replaced");
  EXPECT_EQ(find(5), "");
  remove_leftovers(RunLock(run_));
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000005", "step-00000006"}));
  EXPECT_EQ(find(6), "");
}

TEST_F(Checkpoint, OneProcessToARun) {
  {
    const RunLock lock(run_);
    const std::string holder = "in use by pid " + std::to_string(::getpid()) + " on ";
    expect_in(message_of([&] { RunLock second(run_); }), {run_ + "/lock", holder});
    const pid_t child = ::fork();
    if (child == 0) {
      const std::string message = message_of([&] { RunLock second(run_); });
      ::_exit(message.find(holder) != std::string::npos ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    const RunLock other(base_ + "/runs/b");
  }
  const RunLock again(run_);
}

TEST_F(Checkpoint, TheLockOfAKilledProcessIsFree) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunLock lock(run_);
    if (::write(ready[1], "x", 1) == 1) ::sleep(600);  // until it is killed
    ::_exit(1);
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  expect_in(message_of([&] { RunLock lock(run_); }), {"pid " + std::to_string(child)});
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  const RunLock lock(run_);
  ::close(ready[0]);
  ::close(ready[1]);
}

// A full disk, played by a limit on file sizes, in a process of its own.
TEST_F(Checkpoint, AFullDiskLeavesThePreviousOne) {
  save(run_, 1);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);  // then write() fails with EFBIG
    const rlimit limit = {65536, 65536};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = message_of([&] { save(run_, 2, {.keep_last = 1}, 10000); });
    const std::string want = root_ + "/.tmp-step-00000002/weights.safetensors.partial: write: ";
    ::_exit(message.find(want + "File too large") != std::string::npos ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000001"}));
  EXPECT_EQ(find(1), "");
}

TEST_F(Checkpoint, BadFoldersAndTensors) {
  write(base_ + "/file", "");
  const std::string run = base_ + "/file/run";
  expect_in(message_of([&] { save(run, 1); }), {base_ + "/file", "File exists"});
  expect_in(message_of([&] { RunLock lock(run); }), {base_ + "/file", "File exists"});
  expect_in(message_of([&] { find_newest_valid(run, nullptr); }), {run, "Not a directory"});

  save(run_, 1);
  const Buffer wide(DType::f32, {3, 4});
  const std::vector<NamedTensor> strided = {{"w", wide.view().columns(0, 2)}};
  expect_in(message_of([&] { save_checkpoint(run_, meta_of(2), strided, {}, {}); }),
            {"'w'", "dense"});
  const std::vector<NamedTensor> twice = {{"w", wide.view()}, {"w", wide.view()}};
  expect_in(message_of([&] { save_checkpoint(run_, meta_of(2), {}, twice, {}); }),
            {"optimizer.safetensors", "'w' is declared twice"});
  CheckpointMeta meta = meta_of(2);
  meta.fingerprint["bad"] = "\xFF";
  expect_in(message_of([&] { save_checkpoint(run_, meta, {}, {}, {}); }),
            {"manifest.json", "UTF-8"});
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000001"}));
  if (::geteuid() != 0) {  // root may write anywhere
    ::chmod(root_.c_str(), 0555);
    expect_in(message_of([&] { save(run_, 3); }), {root_, "Permission denied"});
    ::chmod(root_.c_str(), 0755);
  }
  EXPECT_EQ(find(1), "");
}

}  // namespace
}  // namespace sluice
