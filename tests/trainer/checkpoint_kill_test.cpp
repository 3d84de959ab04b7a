// tests/trainer/checkpoint_kill_test.cpp -- SIGKILL at the n-th written byte of a save or before
// any of its other system calls, and each of these calls failing.
//
// A save is a line of points: one for every byte that it writes and one for every other call
// (create, fsync, rename, remove, ...). A process that is killed at point n has done what lies
// before n and nothing else, so it is known which checkpoint must be found.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <map>
#include <set>

#include "tests/trainer/checkpoint_case.h"
#include "trainer/checkpoint/writer.h"

namespace sluice {
namespace {

using namespace test;
using Mode = CheckpointWriter::Mode;

struct Call {
  DiskCall call;
  std::string path;
  int64_t points = 1, begin = 0;  // bytes of a write; where its points begin
  std::string file() const { return path.substr(path.rfind('/') + 1); }
};

// The hooks' state: of the child that is to die, or of a save that is only watched.
std::vector<Call> calls;
int64_t passed = 0, stop_at = -1;  // points done; where to be killed, or the call that fails
bool can_exchange = true;

int64_t no_exchange(DiskCall call, int64_t bytes) {
  if (can_exchange || call != DiskCall::exchange) return bytes;
  errno = EINVAL;  // as NFS
  return -1;
}

int64_t record(DiskCall call, const std::string& path, int64_t bytes) {
  const int64_t points = call == DiskCall::write ? bytes : 1;
  calls.push_back({call, path, points, passed});
  passed += points;
  return no_exchange(call, bytes);
}

int64_t kill_at(DiskCall call, const std::string&, int64_t bytes) {
  const int64_t points = call == DiskCall::write ? bytes : 1;
  if (stop_at == passed) {
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
  }
  if (stop_at < passed + points) {
    bytes = stop_at - passed;  // a short write up to the point; killed before the rest of it
    passed = stop_at;
    return bytes;
  }
  passed += points;
  return no_exchange(call, bytes);
}

int64_t fail_call(DiskCall call, const std::string&, int64_t bytes) {
  const int64_t index = passed++;
  if (index < stop_at) return no_exchange(call, bytes);
  if (call == DiskCall::write && index == stop_at && bytes > 1) return bytes / 2;
  if (call == DiskCall::write || index == stop_at) {  // a full disk stays full
    errno = call == DiskCall::write ? ENOSPC : EIO;
    return -1;
  }
  return bytes;
}

// The state `id` as the checkpoint of `step`, with `hook` at work; empty if all went well.
std::string hooked_save(const std::string& run, Mode mode, int64_t step, int64_t id,
                        DiskHook hook) {
  const State state;
  state.set(id);
  CheckpointWriter writer(run, {.keep_last = 2}, mode, state.weights(), state.optimizer());
  passed = 0;
  set_disk_hook(hook);
  writer.save(meta_of(step));
  const SaveReport report = writer.finish().at(0);
  set_disk_hook(nullptr);
  std::string text = report.error;
  for (const auto& p : report.problems) text += "\n" + p;
  return text;
}

// What a save does, in a run like the one it is for: two checkpoints, and a step that is new, or is
// replaced.
std::vector<Call> watch(const std::string& run, Mode mode, bool replace) {
  calls.clear();
  for (const int64_t step : {100, 101}) save(run, step);
  EXPECT_EQ(hooked_save(run, mode, replace ? 101 : 102, 7, record), "");
  return calls;
}

// Every call, and the rest spread over the bytes of all writes.
std::set<int64_t> choose(const std::vector<Call>& all, int64_t kills) {
  std::set<int64_t> points;
  std::vector<Call> writes;
  for (const Call& c : all) {
    points.insert(c.begin);
    if (c.call == DiskCall::write) writes.push_back(c);
  }
  for (int64_t round = 1; int64_t(points.size()) < kills; ++round)
    for (const Call& w : writes)  // 1/2, 1/3, 2/3, 1/4, ... of each, roughly: any will do
      if (int64_t(points.size()) < kills)
        points.insert(w.begin + (w.points - 1) * (round * 37 % 97) / 97);
  return points;
}

const char* kind(DiskCall call) {
  switch (call) {
    case DiskCall::create: return "create";
    case DiskCall::write: return "write";
    case DiskCall::sync: return "fsync";
    case DiskCall::make_folder: return "mkdir";
    case DiskCall::rename: return "rename";
    case DiskCall::exchange: return "exchange";
    case DiskCall::remove: return "remove";
  }
  return "";
}

class CheckpointKills : public CheckpointTest {
 protected:
  CheckpointKills() : CheckpointTest(quick_folder()) { can_exchange = true; }

  // One kill. The run holds states old_step - 1 and old_id at old_step; the child saves new_id.
  void kill_once(Mode mode, int64_t point, int64_t step, int64_t new_id) {
    const pid_t child = ::fork();
    if (child == 0) {
      stop_at = point;
      hooked_save(run_, mode, step, new_id, kill_at);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "not inside the save";
  }
  CheckpointRef newest() const {
    std::vector<std::string> problems;
    const auto ref = find_newest_valid(run_, &problems);
    for (const auto& p : problems) ADD_FAILURE() << p;
    return ref.value_or(CheckpointRef{"", -1});
  }
  void keep_only(const std::set<int64_t>& steps) const {
    for (const std::string& name : names())
      if (name.rfind("step-", 0) != 0 || !steps.count(std::stol(name.substr(5))))
        remove_tree(root_ + "/" + name);
  }
  void expect_intact() const {
    for (const std::string& name : names()) {
      ASSERT_EQ(name.rfind("step-", 0), 0u) << name;
      const CheckpointRef any{root_ + "/" + name, std::stol(name.substr(5))};
      for (const auto& p : find_problems(any, Verify::contents)) ADD_FAILURE() << p;
    }
  }
  // Kills in a save of a new step; every one must leave the previous checkpoint or the new one,
  // whichever the point says.
  int64_t new_steps(Mode mode, int64_t kills);
  int64_t replaced_steps(Mode mode, int64_t kills);
};

int64_t CheckpointKills::new_steps(Mode mode, int64_t kills) {
  const std::vector<Call> all = watch(base_ + "/watched", mode, false);
  int64_t publication = -1;  // the point before which the new one is not there
  for (const Call& c : all)
    if (c.call == DiskCall::rename && c.file() == ".tmp-step-00000102") publication = c.begin;
  EXPECT_GT(publication, 0);
  std::map<std::string, int> done;
  save(run_, 100);
  save(run_, 101);
  int64_t step = 101, published = 0;
  for (const int64_t point : choose(all, kills)) {
    kill_once(mode, point, step + 1, step + 1);
    const bool now = point > publication;
    const CheckpointRef ref = newest();
    EXPECT_EQ(ref.step, now ? step + 1 : step) << "killed at point " << point;
    const CheckpointRef previous{root_ + "/step-00000" + std::to_string(step), step};
    EXPECT_TRUE(loads(ref, ref.step) && loads(previous, step)) << "killed at point " << point;
    remove_leftovers(RunLock(run_));
    expect_intact();
    if (testing::Test::HasFailure()) return -1;
    step += now;
    published += now;
    keep_only({step - 1, step});
    const Call& in = *std::prev(std::upper_bound(
        all.begin(), all.end(), point, [](int64_t p, const Call& c) { return p < c.begin; }));
    ++done[std::string(kind(in.call)) + " " + in.file()];
  }
  int64_t sum = 0;
  for (const auto& [what, count] : done) {
    if (mode == Mode::sync) std::printf("  %3d  %s\n", count, what.c_str());
    sum += count;
  }
  std::printf("%ld kills in a save (%s) of %ld points, %ld of them after publication\n", long(sum),
              mode == Mode::sync ? "sync" : "async", long(all.back().begin + 1), long(published));
  EXPECT_GT(published, 0);
  EXPECT_LT(published, sum);
  return sum;
}

int64_t CheckpointKills::replaced_steps(Mode mode, int64_t kills) {
  const std::vector<Call> all = watch(base_ + "/watched", mode, true);
  int64_t publication = -1;
  for (const Call& c : all)
    if (c.call == (can_exchange ? DiskCall::exchange : DiskCall::rename) &&
        c.file() == ".tmp-step-00000101")
      publication = c.begin;
  EXPECT_GT(publication, 0);
  save(run_, 100);
  save(run_, 101);
  int64_t id = 101;
  for (const int64_t point : choose(all, kills)) {
    kill_once(mode, point, 101, id + 1);
    if (!can_exchange) remove_leftovers(RunLock(run_));  // there is a moment without a step-101
    const CheckpointRef ref = newest();
    EXPECT_EQ(ref.step, 101);
    State got;
    load_tensors(ref, Part::weights, got.weights());
    load_tensors(ref, Part::optimizer, got.optimizer());
    EXPECT_TRUE(got.is(point > publication ? id + 1 : id)) << "killed at point " << point;
    remove_leftovers(RunLock(run_));
    expect_intact();
    if (testing::Test::HasFailure()) return -1;
    id += point > publication;
  }
  return int64_t(choose(all, kills).size());
}

TEST_F(CheckpointKills, InASave) {
  EXPECT_GE(new_steps(Mode::sync, 100), 100);
}
TEST_F(CheckpointKills, InAnAsynchronousSave) {
  EXPECT_GE(new_steps(Mode::async, 100), 100);
}
TEST_F(CheckpointKills, InASaveThatReplacesItsStep) {
  EXPECT_GE(replaced_steps(Mode::sync, 60), 60);
}
TEST_F(CheckpointKills, InAReplacementWithoutAnExchangeOfNames) {
  can_exchange = false;
  EXPECT_GE(replaced_steps(Mode::async, 60), 60);
}

// Each call of a save fails once; a write in its middle, and the disk stays full.
TEST_F(CheckpointKills, EveryCallThatFailsIsReported) {
  for (const bool replace : {false, true}) {
    const std::vector<Call> all = watch(base_ + (replace ? "/b" : "/a"), Mode::sync, replace);
    for (size_t i = 0; i < all.size(); ++i) {
      remove_tree(run_);
      for (const int64_t step : {100, 101}) save(run_, step);
      stop_at = int64_t(i);
      const int64_t step = replace ? 101 : 102;
      const std::string error = hooked_save(run_, Mode::async, step, 7, fail_call);
      const std::string where = cat(kind(all[i].call), " ", all[i].file(), ": ", error);
      const std::string why =
          all[i].call == DiskCall::write ? "No space left" : "Input/output error";
      EXPECT_NE(error.find(why), std::string::npos) << where;
      const CheckpointRef ref = newest();
      EXPECT_TRUE(ref.step == step || ref.step == 101) << where;
      remove_leftovers(RunLock(run_));
      expect_intact();
      EXPECT_EQ(hooked_save(run_, Mode::sync, 102, 8, nullptr), "") << where;  // room again
      EXPECT_EQ(newest().step, 102) << where;
      EXPECT_EQ(names().size(), 2u) << where;
      if (testing::Test::HasFailure()) return;
    }
  }
}

// What survives a loss of power is what was synced: before a name is published, everything below it
// is, and before an old checkpoint goes, the publication is.
TEST_F(CheckpointKills, EverythingIsSyncedBeforeItIsPublished) {
  std::set<std::string> dirty;  // changed since their last fsync
  bool published = false;
  const std::string tmp = base_ + "/watched/checkpoints/.tmp-step-00000102";
  const std::string root = base_ + "/watched/checkpoints";
  for (const Call& c : watch(base_ + "/watched", Mode::sync, false)) {
    if (c.call == DiskCall::create || c.call == DiskCall::make_folder || c.call == DiskCall::remove)
      dirty.insert(parent_of(c.path));
    if (c.call == DiskCall::write || c.call == DiskCall::create) dirty.insert(c.path);
    if (c.call == DiskCall::sync) dirty.erase(c.path);
    if (c.call == DiskCall::create && c.file() == "manifest.json") {
      EXPECT_EQ(dirty.size(), 2u);  // itself and its folder: all other files come before it
    }
    if (c.call == DiskCall::rename && c.path == tmp) {
      EXPECT_TRUE(dirty.empty()) << *dirty.begin();
      published = true;
    }
    if (c.call == DiskCall::remove) {
      EXPECT_TRUE(published);
    }
    if (c.call == DiskCall::rename) {
      if (published && c.path != tmp) {
        EXPECT_FALSE(dirty.count(root)) << "an old one goes first";
      }
      EXPECT_FALSE(dirty.count(c.path)) << c.path;
      dirty.insert(parent_of(c.path));
    }
  }
  EXPECT_TRUE(published);
}

}  // namespace
}  // namespace sluice
