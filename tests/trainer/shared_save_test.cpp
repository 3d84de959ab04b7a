// tests/trainer/shared_save_test.cpp -- checkpoints of many ranks: saved by one mesh and loaded by
// others, damaged, and on a disk that is full on one rank.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <iostream>

#include "tests/trainer/shared_case.h"

namespace sluice {
namespace {

using namespace test;
using Mode = CheckpointWriter::Mode;

const Model& model() {
  static const Model m;
  return m;
}

class SharedSaves : public CheckpointTest {
 protected:
  SharedSaves() : CheckpointTest(quick_folder()) {}

  // The reports are the same on all ranks; rank 0's.
  SaveReport save_by(const Mesh& mesh, int64_t step, Mode mode = Mode::async,
                     int64_t keep_last = 3) const {
    std::vector<SaveReport> reports(static_cast<size_t>(mesh.ranks));
    LocalGroup(mesh.ranks).run([&](Comm& comm) {
      const RankState state(model().params, mesh, comm.rank());
      state.set(step);
      CheckpointWriter writer(run_, {.keep_last = keep_last}, mode, state.weights(),
                              state.moments(), &comm);
      writer.save(meta_of(step));
      if (mode == Mode::async) state.set(step + 1);  // training goes on
      reports[size_t(comm.rank())] = writer.finish().at(0);
    });
    for (const SaveReport& r : reports) {
      EXPECT_EQ(r.error, reports[0].error);
      EXPECT_EQ(r.folder, reports[0].folder);
    }
    return reports[0];
  }
  // Wrong elements over all ranks.
  int64_t load_by(const Mesh& mesh, int64_t step) const {
    std::atomic<int64_t> wrong{0};
    LocalGroup(mesh.ranks).run([&](Comm& comm) {
      const RankState state(model().params, mesh, comm.rank());
      const auto ref = find_newest_valid(run_, nullptr, Verify::contents, &comm);
      SLUICE_CHECK(ref && ref->step == step, "found step ", ref ? ref->step : -1);
      load_tensors(*ref, Part::weights, state.weights());
      load_tensors(*ref, Part::optimizer, state.moments());
      wrong += state.wrong(step);
    });
    return wrong;
  }
  std::string find_by(int ranks, int64_t* step) const {
    std::vector<std::string> texts(static_cast<size_t>(ranks));
    LocalGroup(ranks).run([&](Comm& comm) {
      std::vector<std::string> problems;
      const auto ref = find_newest_valid(run_, &problems, Verify::contents, &comm);
      *step = ref ? ref->step : -1;
      for (const std::string& p : problems) texts[size_t(comm.rank())] += p + "\n";
    });
    for (const std::string& t : texts) EXPECT_EQ(t, texts[0]);
    return texts[0];
  }
};

constexpr Mesh kMeshes[] = {{1},       {2},       {3},       {4},       {8},
                            {4, 1, 2}, {4, 1, 4}, {4, 2, 1}, {8, 1, 4}, {8, 2, 2}};

TEST_F(SharedSaves, EveryMeshLoadsWhatEveryOtherSaved) {
  int64_t step = 0;
  for (const Mesh& from : {Mesh{4}, Mesh{4, 1, 2}, Mesh{4, 2, 1}, Mesh{8, 2, 2}, Mesh{1}}) {
    ++step;
    const SaveReport report = save_by(from, step, step % 2 ? Mode::async : Mode::sync);
    ASSERT_EQ(report.error, "");
    for (const Mesh& to : kMeshes) {
      EXPECT_EQ(load_by(to, step), 0) << to_string(from) << " -> " << to_string(to);
      std::cout << to_string(from) << " -> " << to_string(to) << ": equal\n";
    }
  }
}

// A run of one rank keeps the files that it always had.
TEST_F(SharedSaves, OneRankIsAsItWas) {
  ASSERT_EQ(save_by({1}, 3).error, "");
  EXPECT_TRUE(fs::exists(file(3, "weights.safetensors")));
  const Manifest m = read_manifest({root_ + "/step-00000003", 3});
  EXPECT_EQ(m.files.size(), 3u);
  EXPECT_NE(read(file(3, "manifest.json")).find("\"version\": 2"), std::string::npos);
  EXPECT_EQ(read(file(3, "manifest.json")).find("\"begin\""), std::string::npos);
}

TEST_F(SharedSaves, ReplicasAreWrittenOnce) {
  const SaveReport once = save_by({4, 2, 1}, 5);
  ASSERT_EQ(once.error, "");
  EXPECT_TRUE(fs::exists(file(5, "weights-00001-of-00004.safetensors")));
  EXPECT_FALSE(fs::exists(file(5, "weights-00002-of-00004.safetensors")));
  int64_t bytes = 0;
  for (int i = 0; i < model().params.size(); ++i) {
    const ParamSpec& s = model().params.spec({i});
    bytes += s.numel() * 4 * (s.rule == UpdateRule::gradient ? 3 : 1);
  }
  EXPECT_EQ(once.bytes, bytes);
}

// The tensors of many files as whole ones: what export, inspect and compare read.
TEST_F(SharedSaves, WholeTensors) {
  ASSERT_EQ(save_by({4, 1, 2}, 5).error, "");
  const CheckpointRef sharded{root_ + "/step-00000005", 5};
  const RankState want(model().params, {1}, 0);
  want.set(5);
  const CheckpointTensors tensors(sharded, Part::weights);
  ASSERT_EQ(tensors.entries().size(), want.weights().size());
  for (const NamedTensor& n : want.weights()) {
    EXPECT_EQ(to_string(*tensors.find(n.name)), to_string(entry_of(n)));
    EXPECT_EQ(tensors.crc32(n.name), crc32_of(n.t.data, n.t.bytes())) << n.name;
    const Buffer got(DType::f32, {n.t.numel()});
    tensors.read_slice(n.name, 0, got.view());
    EXPECT_EQ(std::memcmp(got.view().data, n.t.data, size_t(n.t.bytes())), 0) << n.name;
  }
}

TEST_F(SharedSaves, ParametersThatNobodyOwnsAreFoundAtStart) {
  const auto error_with = [&](const std::function<void(int, std::vector<NamedTensor>&)>& change) {
    return message_of([&] {
      LocalGroup(2).run([&](Comm& comm) {
        const RankState state(model().params, {2}, comm.rank());
        std::vector<NamedTensor> weights = state.weights();
        change(comm.rank(), weights);
        const CheckpointWriter writer(run_, {}, Mode::sync, weights, state.moments(), &comm);
      });
    });
  };
  const std::string name = model().params.spec({0}).name;
  expect_in(error_with([](int rank, auto& w) {
              if (rank == 1) w.erase(w.begin());
            }),
            {"tensor '" + name + "'", "are in no file"});
  expect_in(error_with([](int rank, auto& w) {
              if (rank == 1) --w[0].begin;
            }),
            {"weights-00001-of-00002.safetensors: tensor '" + name, "are in another file, too"});
  expect_in(error_with([](int rank, auto& w) {
              if (rank == 1) w[0].whole.push_back(1);
            }),
            {"tensor '" + name, "on rank 1 and", "on rank 0"});
}

TEST_F(SharedSaves, DamageIsNamedAndTheOneBeforeIsTaken) {
  using Change = std::function<void(Manifest&)>;
  const std::string one = "weights-00001-of-00004.safetensors";
  const auto edit = [&](const Change& change) {
    Manifest m = read_manifest({root_ + "/step-00000006", 6});
    change(m);
    write(file(6, "manifest.json"), format_manifest(m, "manifest"));
  };
  const auto piece = [&](Manifest& m) -> ManifestTensor& {
    return m.files.at(one).tensors.begin()->second;
  };
  const std::vector<std::pair<std::function<void()>, std::string>> damages = {
      {[&] { fs::remove(file(6, one)); }, one + ": open: No such file"},
      {[&] { flip_byte(file(6, one), int64_t(fs::file_size(file(6, one))) - 2); },
       one + ": expected crc32"},
      {[&] { fs::resize_file(file(6, one), fs::file_size(file(6, one)) - 1); },
       one + ": expected "},
      {[&] {
         fs::rename(file(6, one), file(6, "x"));
         fs::rename(file(6, "weights-00002-of-00004.safetensors"), file(6, one));
         fs::rename(file(6, "x"), file(6, "weights-00002-of-00004.safetensors"));
       },
       "expected crc32"},
      {[&] { edit([&](Manifest& m) { m.files.erase(one); }); }, "are in no file"},
      {[&] { edit([&](Manifest& m) { piece(m).begin -= 1; }); }, "are in another file, too"},
      {[&] { edit([&](Manifest& m) { piece(m).begin += int64_t(1) << 40; }); }, "expected "},
      {[&] { edit([&](Manifest& m) { piece(m).type = "bf16 [1]"; }); }, "expected a piece of f32"},
      {[&] { edit([&](Manifest& m) { m.whole[Part::weights].pop_back(); }); },
       "is none of the model's"},
      {[&] { edit([&](Manifest& m) { m.files["weights-00004-of-00004.safetensors"] = {}; }); },
       "in a checkpoint of 4 ranks"}};
  ASSERT_EQ(save_by({4}, 5).error, "");
  for (const auto& [damage, message] : damages) {
    ASSERT_EQ(save_by({4}, 6).error, "");
    damage();
    for (const int ranks : {1, 3}) {
      int64_t step = 0;
      const std::string problems = find_by(ranks, &step);
      EXPECT_EQ(step, 5) << message;
      expect_in(problems, {message});
      if (ranks == 1) std::cout << problems;
    }
    fs::remove_all(root_ + "/step-00000006");
  }
}

int64_t full_on_rank_2(DiskCall call, const std::string& path, int64_t bytes) {
  if (call != DiskCall::write || path.find("-00002-of-00004") == std::string::npos) return bytes;
  errno = ENOSPC;
  return -1;
}
int64_t full_for_manifests(DiskCall call, const std::string& path, int64_t bytes) {
  if (call != DiskCall::write || path.find("manifest.json") == std::string::npos) return bytes;
  errno = ENOSPC;
  return -1;
}
int64_t no_room_for_folders(DiskCall call, const std::string& path, int64_t bytes) {
  if (call != DiskCall::make_folder || path.find("step-") == std::string::npos) return bytes;
  errno = EDQUOT;
  return -1;
}

TEST_F(SharedSaves, ADiskThatIsFullOnOneRank) {
  for (const Mode mode : {Mode::sync, Mode::async}) {
    ASSERT_EQ(save_by({4}, 5, mode).error, "");
    for (const auto& [hook, parts] : std::vector<std::pair<DiskHook, std::vector<std::string>>>{
             {full_on_rank_2, {"rank 2: ", "weights-00002-of-00004", "No space left"}},
             {full_for_manifests, {"manifest.json", "No space left"}},
             {no_room_for_folders, {"rank 0: ", "quota"}}}) {
      set_disk_hook(hook);
      const std::string error = save_by({4}, 6, mode, 1).error;
      set_disk_hook(nullptr);
      expect_in(error, parts);
      EXPECT_EQ(names(), (std::vector<std::string>{"step-00000005"}));
      EXPECT_EQ(load_by({2}, 5), 0);
    }
    ASSERT_EQ(save_by({4}, 7, mode, 1).error, "");
    EXPECT_EQ(load_by({3}, 7), 0);
    fs::remove_all(root_);
  }
}

std::atomic<int64_t> g_calls{0};
int64_t g_stop_at = -1;
int64_t kill_at_call(DiskCall, const std::string&, int64_t bytes) {
  if (++g_calls == g_stop_at) ::raise(SIGKILL);
  return bytes;
}

// Wherever all ranks die, there is the old checkpoint or the new one.
TEST_F(SharedSaves, KilledAnywhere) {
  ASSERT_EQ(save_by({3}, 5).error, "");
  set_disk_hook(kill_at_call);
  ASSERT_EQ(save_by({3}, 6).error, "");
  set_disk_hook(nullptr);
  const int64_t calls = g_calls;
  fs::remove_all(root_ + "/step-00000006");
  std::vector<int64_t> points;
  for (int64_t i = 1; i <= 16; ++i) points.push_back(calls * i / 17);
  for (int64_t i = 8; i-- > 0;) points.push_back(calls - i);  // manifest, publication, what follows
  int with_new = 0;
  for (const int64_t point : points) {
    fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      g_calls = 0;
      g_stop_at = point;
      set_disk_hook(kill_at_call);
      save_by({3}, 6);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "not killed at call " << point;
    int64_t step = 0;
    EXPECT_EQ(find_by(2, &step), "") << "killed at call " << point;
    EXPECT_EQ(load_by({2}, step), 0) << "killed at call " << point;
    remove_leftovers(RunLock(run_));
    with_new += step == 6;
    fs::remove_all(root_ + "/step-00000006");
  }
  EXPECT_GT(with_new, 0);
  EXPECT_LT(with_new, 8);
  std::cout << points.size() << " kills, " << with_new << " after the publication\n";
}

}  // namespace
}  // namespace sluice
