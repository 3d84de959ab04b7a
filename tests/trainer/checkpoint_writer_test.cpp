// tests/trainer/checkpoint_writer_test.cpp -- asynchronous saves: the same bytes, one at a time, no
// error lost, and what a full disk does.
#include "trainer/checkpoint/writer.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "tests/trainer/checkpoint_case.h"

namespace sluice {
namespace {

using namespace test;
using Mode = CheckpointWriter::Mode;

std::atomic<int64_t> writes{0};
constexpr auto kPause = std::chrono::milliseconds(60);

int64_t slow_first_write(DiskCall call, const std::string&, int64_t bytes) {
  if (call == DiskCall::write && writes++ == 0) std::this_thread::sleep_for(kPause);
  return bytes;
}
int64_t full_disk(DiskCall call, const std::string&, int64_t bytes) {
  if (call != DiskCall::write) return bytes;
  errno = ENOSPC;
  return -1;
}

struct Hook {
  explicit Hook(DiskHook hook) {
    writes = 0;
    set_disk_hook(hook);
  }
  ~Hook() { set_disk_hook(nullptr); }
};

class CheckpointWriterTest : public CheckpointTest {
 protected:
  CheckpointWriter writer(Mode mode, int64_t keep_last = 3) const {
    return CheckpointWriter(run_, {.keep_last = keep_last}, mode, state_.weights(),
                            state_.optimizer());
  }
  // The step's state; its own memory is overwritten at once, as the next step would do.
  void save_and_go_on(CheckpointWriter& w, int64_t step) const {
    state_.set(step);
    w.save(meta_of(step));
    state_.set(-1);
  }
  CheckpointRef ref(int64_t step) const {
    return {file(step, "").substr(0, file(step, "").size() - 1), step};
  }

  State state_{300};
};

TEST_F(CheckpointWriterTest, TheBytesAreThoseOfASynchronousSave) {
  CheckpointWriter async = writer(Mode::async);
  EXPECT_EQ(async.snapshot_bytes(),
            (300 * 7 * 4 + 255) / 256 * 256 + (300 * 7 * 8 + 255) / 256 * 256);
  save_and_go_on(async, 1);
  const std::vector<SaveReport> reports = async.finish();
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].error, "");
  EXPECT_EQ(reports[0].step, 1);
  EXPECT_EQ(reports[0].folder, ref(1).folder);
  EXPECT_EQ(reports[0].bytes, 300 * 7 * 12);
  EXPECT_GT(reports[0].write_seconds, 0);
  EXPECT_TRUE(loads(ref(1), 1, 300));

  const std::vector<std::string> files = {"weights.safetensors", "optimizer.safetensors",
                                          "config.yaml"};
  std::vector<std::string> want;
  for (const std::string& name : files) want.push_back(read(file(1, name)));
  fs::remove_all(root_);
  CheckpointWriter sync = writer(Mode::sync);
  EXPECT_EQ(sync.snapshot_bytes(), 0);
  state_.set(1);
  sync.save(meta_of(1));
  EXPECT_EQ(sync.finish().at(0).error, "");
  for (size_t i = 0; i < files.size(); ++i)
    EXPECT_TRUE(read(file(1, files[i])) == want[i]) << files[i];
}

TEST_F(CheckpointWriterTest, TheCallerGoesOnAndTheNextSaveWaits) {
  CheckpointWriter w = writer(Mode::async);
  const Hook hook(slow_first_write);
  save_and_go_on(w, 1);
  EXPECT_TRUE(w.collect().empty());  // it sleeps in its first write
  EXPECT_FALSE(find_newest_valid(run_, nullptr));
  save_and_go_on(w, 2);
  save_and_go_on(w, 3);
  std::vector<SaveReport> reports = w.finish();
  ASSERT_EQ(reports.size(), 3u);
  EXPECT_LT(reports[0].blocked_seconds, 0.05);
  EXPECT_GT(reports[0].write_seconds, 0.059);
  EXPECT_GT(reports[1].waited_seconds, 0.01);
  EXPECT_GE(reports[1].blocked_seconds, reports[1].waited_seconds);
  for (const int64_t step : {1, 2, 3}) EXPECT_TRUE(loads(ref(step), step, 300));
  EXPECT_TRUE(w.finish().empty());
}

TEST_F(CheckpointWriterTest, ItIsNotDestroyedWithASaveUnderWay) {
  const Hook hook(slow_first_write);
  {
    CheckpointWriter w = writer(Mode::async);
    writes = 0;
    save_and_go_on(w, 5);
  }
  EXPECT_TRUE(loads(ref(5), 5, 300));
}

TEST_F(CheckpointWriterTest, FailuresAreReportedAndTheNextSaveWorks) {
  for (const Mode mode : {Mode::sync, Mode::async}) {
    CheckpointWriter w = writer(mode);
    save_and_go_on(w, 1);
    EXPECT_EQ(w.finish().at(0).error, "");
    {
      const Hook hook(full_disk);
      save_and_go_on(w, 2);
      save_and_go_on(w, 3);
      const std::vector<SaveReport> reports = w.finish();
      ASSERT_EQ(reports.size(), 2u);
      expect_in(reports[0].error,
                {".tmp-step-00000002/weights.safetensors.partial: write: No space"});
      expect_in(reports[1].error, {".tmp-step-00000003", "No space"});
    }
    EXPECT_EQ(find(1), "");
    EXPECT_EQ(names().size(), 1u);
    save_and_go_on(w, 4);
    EXPECT_EQ(w.finish().at(0).error, "");
    EXPECT_EQ(find(4), "");
    fs::remove_all(root_);
  }
}

TEST_F(CheckpointWriterTest, AFailureThatNobodyCollectedIsPrinted) {
  testing::internal::CaptureStderr();
  {
    CheckpointWriter w = writer(Mode::async);
    set_disk_hook(full_disk);
    save_and_go_on(w, 3);
  }
  set_disk_hook(nullptr);
  expect_in(testing::internal::GetCapturedStderr(),
            {"the checkpoint of step 3 was not saved", "No space"});
}

TEST_F(CheckpointWriterTest, AStateWithNanIsNotSaved) {
  CheckpointWriter w = writer(Mode::async);
  save_and_go_on(w, 1);
  state_.set(2);
  state_.m.view().as<double>()[10] = -INFINITY;
  w.save(meta_of(2));
  const auto reports = w.finish();
  ASSERT_EQ(reports.size(), 2u);
  expect_in(reports[1].error,
            {"optimizer.safetensors", "tensor 'w.m': 1 of 2100 elements are not finite"});
  EXPECT_EQ(find(1), "");
}

// Mounts a file system of 1 MiB in a child that sees it alone, and runs `f` in there. False, if
// this machine does not let us.
template <class F>
bool on_small_disk(const std::string& folder, unsigned long flags, const F& f) {
  fs::create_directories(folder);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", folder.c_str(), "tmpfs", flags, "size=1m") != 0)
      ::_exit(77);
    f();
    std::fflush(nullptr);
    ::_exit(testing::Test::HasFailure());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77))
      << status;
  return WEXITSTATUS(status) != 77;
}

TEST_F(CheckpointWriterTest, ADiskThatIsReallyFull) {
  const bool could = on_small_disk(run_, 0, [&] {
    const State large(10000);  // 820 KiB: one fits, two do not
    CheckpointWriter w(run_, {.keep_last = 1}, Mode::async, large.weights(), large.optimizer());
    for (const int64_t step : {1, 2}) {
      large.set(step);
      w.save(meta_of(step));
    }
    const auto reports = w.finish();
    EXPECT_EQ(reports.at(0).error, "");
    expect_in(reports.at(1).error, {"write: No space left on device"});
    EXPECT_EQ(find(1), "");
    EXPECT_TRUE(loads(ref(1), 1, 10000));
    EXPECT_EQ(names().size(), 1u);  // nothing of the second one takes room
    EXPECT_EQ(message_of([&] { replace_text(run_ + "/config.yaml", "old"); }), "no error");
    expect_in(message_of([&] { replace_text(run_ + "/config.yaml", std::string(1 << 20, 'x')); }),
              {"config.yaml.partial: write: No space left"});
    EXPECT_EQ(read(run_ + "/config.yaml"), "old");
    fs::remove_all(ref(1).folder);  // somebody makes room
    w.save(meta_of(3));
    EXPECT_EQ(w.finish().at(0).error, "");
  });
  if (!could)
    GTEST_SKIP() << "no mount in a namespace of our own: the disk is full in the test above only";
}

TEST_F(CheckpointWriterTest, AReadOnlyFolderIsFoundAtOnce) {
  const bool could = on_small_disk(run_, MS_RDONLY, [&] {
    expect_in(message_of([&] { writer(Mode::async); }),
              {run_ + "/checkpoints", "Read-only file system"});
  });
  if (!could) GTEST_SKIP() << "no mount in a namespace of our own";
}

}  // namespace
}  // namespace sluice
