// tests/trainer/checkpoint_case.h -- a small state to save, and a run's folder to save it in.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "model/export/posix_file.h"
#include "tests/support/gradcheck.h"
#include "trainer/checkpoint/checkpoint.h"

namespace sluice::test {

namespace fs = std::filesystem;

// A model of three tensors, all of whose elements depend on the step.
struct State {
  explicit State(int64_t rows = 33)
      : w(DType::f32, {rows, 7}), m(DType::f64, {rows, 7}), b(DType::f32, {0, 5}) {}

  std::vector<NamedTensor> weights() const { return {{"w", w.view()}, {"b", b.view()}}; }
  std::vector<NamedTensor> optimizer() const { return {{"w.m", m.view()}}; }
  void set(int64_t step) const {
    fill_normal(w.view(), uint64_t(2 * step));
    fill_normal(m.view(), uint64_t(2 * step + 1));
  }
  bool is(int64_t step) const {
    State want(w.view().dim(0));
    want.set(step);
    return std::memcmp(w.view().data, want.w.view().data, size_t(w.view().bytes())) == 0 &&
           std::memcmp(m.view().data, want.m.view().data, size_t(m.view().bytes())) == 0;
  }

  Buffer w, m, b;
};

inline CheckpointMeta meta_of(int64_t step) {
  return {.step = step,
          .config_yaml = "model: {layers: 3}\n",
          .fingerprint = {{"build", "abc \"1\"\n"}, {"isa", "avx2"}},
          .integers = {{"seed", -7}, {"tokens", int64_t(1) << 60}},
          .numbers = {{"loss", 0.1}, {"best", std::nan("")}, {"worst", -INFINITY}}};
}

inline SaveResult save(const std::string& run, int64_t step, const Retention& retention = {},
                       int64_t rows = 33) {
  State state(rows);
  state.set(step);
  return save_checkpoint(run, meta_of(step), state.weights(), state.optimizer(), retention);
}

inline bool loads(const CheckpointRef& ref, int64_t step, int64_t rows = 33) {
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

inline void expect_in(const std::string& message, const std::vector<std::string>& parts) {
  for (const auto& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
}

// A folder in memory, if there is one. What a kill or damage leaves does not depend on the disk,
// and hundreds of fsyncs do not wait for it.
inline std::string quick_folder() {
  return fs::is_directory("/dev/shm") ? "/dev/shm/" : testing::TempDir();
}

class CheckpointTest : public testing::Test {
 protected:
  explicit CheckpointTest(const std::string& where = testing::TempDir()) {
    std::string pattern = where + "checkpoint-XXXXXX";
    base_ = ::mkdtemp(pattern.data());
    run_ = base_ + "/runs/a";
    root_ = run_ + "/checkpoints";
  }
  ~CheckpointTest() override { fs::remove_all(base_); }

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

inline void flip_byte(const std::string& path, int64_t offset) {
  std::fstream f(path, std::ios::in | std::ios::out | std::ios::binary);
  f.seekg(offset);
  const char c = char(f.get() ^ 4);
  f.seekp(offset);
  f.put(c);
}

inline void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}
inline std::string read(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace sluice::test
