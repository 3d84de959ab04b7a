// tests/trainer/checkpoint_test.cpp -- round trips, kills at any moment, damage, pruning, the lock.
#include "trainer/checkpoint/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <thread>

#include "kernels/tensor/buffer.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// A model of three tensors, all of whose elements depend on the step.
struct State {
  explicit State(int64_t rows = 33)
      : w(DType::f32, {rows, 7}), m(DType::f64, {rows, 7}), b(DType::f32, {0, 5}) {}

  std::vector<NamedTensor> weights() const { return {{"w", w.view()}, {"b", b.view()}}; }
  std::vector<NamedTensor> optimizer() const { return {{"w.m", m.view()}}; }
  void set(int64_t step) const {
    test::fill_normal(w.view(), uint64_t(2 * step));
    test::fill_normal(m.view(), uint64_t(2 * step + 1));
  }
  bool is(int64_t step) const {
    State want(w.view().dim(0));
    want.set(step);
    return std::memcmp(w.view().data, want.w.view().data, size_t(w.view().bytes())) == 0 &&
           std::memcmp(m.view().data, want.m.view().data, size_t(m.view().bytes())) == 0;
  }

  Buffer w, m, b;
};

CheckpointMeta meta_of(int64_t step) {
  return {.step = step,
          .config_yaml = "model: {layers: 3}\n",
          .fingerprint = {{"build", "abc \"1\"\n"}, {"isa", "avx2"}},
          .integers = {{"seed", -7}, {"tokens", int64_t(1) << 60}},
          .numbers = {{"loss", 0.1}, {"best", std::nan("")}, {"worst", -INFINITY}}};
}

SaveResult save(const std::string& run, int64_t step, const Retention& retention = {},
                int64_t rows = 33) {
  State state(rows);
  state.set(step);
  return save_checkpoint(run, meta_of(step), state.weights(), state.optimizer(), retention);
}

bool loads(const CheckpointRef& ref, int64_t step, int64_t rows = 33) {
  State state(rows);
  load_tensors(ref, Part::weights, state.weights());
  load_tensors(ref, Part::optimizer, state.optimizer());
  return state.is(step) && load_meta(ref).step == step;
}

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

void expect_in(const std::string& message, const std::vector<std::string>& parts) {
  for (const auto& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
}

class Checkpoint : public testing::Test {
 protected:
  Checkpoint() {
    std::string pattern = testing::TempDir() + "checkpoint-XXXXXX";
    base_ = ::mkdtemp(pattern.data());
    run_ = base_ + "/runs/a";
    root_ = run_ + "/checkpoints";
  }
  ~Checkpoint() override { fs::remove_all(base_); }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(root_))
      all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    return all;
  }
  std::string file(int64_t step, const std::string& name) const {
    return root_ + "/step-0000000" + std::to_string(step) + "/" + name;
  }
  // The newest valid one must be `step`; returns the problems on the way to it.
  std::string find(int64_t step, Verify verify = Verify::contents) const {
    std::vector<std::string> problems;
    const auto ref = find_newest_valid(run_, &problems, verify);
    EXPECT_TRUE(ref && ref->step == step) << (ref ? ref->step : -1);
    std::string text;
    for (const auto& p : problems) text += p + "\n";
    return text;
  }

  std::string base_, run_, root_;
};

void flip_byte(const std::string& path, int64_t offset) {
  std::fstream f(path, std::ios::in | std::ios::out | std::ios::binary);
  f.seekg(offset);
  const char c = char(f.get() ^ 4);
  f.seekp(offset);
  f.put(c);
}

void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}
std::string read(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

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

// Random moments of a save, of pruning, and of replacing a step (every second one is saved twice).
TEST_F(Checkpoint, KilledAtAnyMomentItResumesFromACompleteOne) {
  constexpr int64_t kRows = 3000;
  // The moments are spread over the first few saves, however slow this machine is.
  const auto start = std::chrono::steady_clock::now();
  for (int64_t step = 0; step < 4; ++step) save(base_ + "/timing", step, {.keep_last = 2}, kRows);
  const auto four_saves = std::chrono::steady_clock::now() - start;
  int64_t newest = -1, rounds_with_leftovers = 0, advances = 0;
  for (int round = 0; round < 30; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      try {
        for (int64_t step = newest + 1;; ++step) {
          save(run_, step, {.keep_last = 2}, kRows);
          if (step % 2 == 0) save(run_, step, {.keep_last = 2}, kRows);
        }
      } catch (const std::exception& e) {
        std::fprintf(stderr, "child: %s\n", e.what());
        ::_exit(1);
      }
    }
    std::this_thread::sleep_for(four_saves * (1 + round * 7919 % 59) / 60);  // irregular
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child failed, status " << status;

    std::vector<std::string> problems;
    const auto ref = find_newest_valid(run_, &problems);
    EXPECT_TRUE(problems.empty()) << problems[0];
    if (newest >= 0) {
      ASSERT_TRUE(ref) << "round " << round;
    }
    if (!ref) continue;
    ASSERT_GE(ref->step, newest);
    ASSERT_TRUE(loads(*ref, ref->step, kRows));
    advances += ref->step > newest;
    newest = ref->step;

    rounds_with_leftovers += names()[0].rfind(".tmp-", 0) == 0;
    remove_leftovers(RunLock(run_));
    for (const auto& name : names()) EXPECT_EQ(name.rfind("step-", 0), 0u) << name;
    for (const auto& name : names()) {  // the older ones too: no half removed checkpoint
      const CheckpointRef any{root_ + "/" + name, std::stol(name.substr(5))};
      EXPECT_TRUE(find_problems(any, Verify::contents).empty()) << any.folder;
    }
  }
  // Kills between publishing and removing leave surplus ones; a whole save removes them all.
  save(run_, newest + 1, {.keep_last = 2}, kRows);
  EXPECT_EQ(names().size(), 2u);
  // Otherwise the kills came before or between the saves, and this has tested nothing.
  EXPECT_GT(rounds_with_leftovers, 0);
  EXPECT_GT(advances, 0);
}

TEST_F(Checkpoint, DamagedOnesAreSkippedLoudly) {
  for (int64_t step = 1; step <= 9; ++step) save(run_, step, {.keep_last = 9});
  const std::string w = "weights.safetensors", manifest = "manifest.json";

  flip_byte(file(9, w), int64_t(fs::file_size(file(9, w))) - 3);
  expect_in(find(9, Verify::sizes), {});  // sizes alone do not show it
  expect_in(find(8), {file(9, w), "expected crc32", "got", "1 tensors changed: 'w'"});

  fs::resize_file(file(8, w), fs::file_size(file(8, w)) - 1);
  const std::string bytes = std::to_string(fs::file_size(file(7, w)));
  expect_in(find(7, Verify::contents), {file(8, w) + ": expected " + bytes + " bytes, got"});

  fs::remove(file(7, "optimizer.safetensors"));
  expect_in(find(6), {file(7, "optimizer.safetensors"), "open", "No such file"});

  fs::remove(file(6, manifest));
  expect_in(find(5), {file(6, manifest), "No such file"});

  write(file(5, manifest), read(file(5, manifest)).substr(0, 200));
  expect_in(find(4), {file(5, manifest), "parse error"});

  std::string text = read(file(4, manifest));  // still good JSON
  text.replace(text.find("\"seed\": -7"), 10, "\"seed\": -8");
  write(file(4, manifest), text);
  expect_in(find(3), {file(4, manifest), "expected crc32", "got"});

  write(file(3, "config.yaml"), "model: {layers: 4}\n");
  expect_in(find(2), {file(3, "config.yaml"), "expected crc32"});
  expect_in(message_of([&] { load_meta({root_ + "/step-00000003", 3}); }), {"config.yaml"});

  fs::rename(file(2, ""), root_ + "/step-00000005.x");  // the manifest of another step
  fs::remove_all(file(5, ""));
  fs::rename(root_ + "/step-00000005.x", root_ + "/step-00000005");
  expect_in(find(1), {file(5, manifest), "expected step 5, got 2"});

  fs::resize_file(file(1, w), 3);
  std::vector<std::string> problems;
  EXPECT_FALSE(find_newest_valid(run_, &problems));
  EXPECT_GE(problems.size(), 8u);
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
