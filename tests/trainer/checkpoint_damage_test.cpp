// tests/trainer/checkpoint_damage_test.cpp -- broken checkpoints: each is skipped for the one
// before it, and says what is wrong. The test prints the table of damage and message.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <iostream>

#include "model/export/safetensors.h"
#include "tests/trainer/checkpoint_case.h"
#include "trainer/checkpoint/folder.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {
namespace {

using namespace test;

// Writes other tensors in the place of weights.safetensors, a good file of its own.
void write_weights(const std::string& path, const std::vector<NamedTensor>& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const NamedTensor& n : tensors)
    entries.push_back({.name = n.name,
                       .dtype = n.t.dtype,
                       .shape = {n.t.shape.begin(), n.t.shape.begin() + n.t.rank}});
  SafetensorsWriter writer(path, entries);
  for (const NamedTensor& n : tensors) writer.write(n.name, n.t);
  writer.finish();
}

void replace(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = read(path);
  ASSERT_NE(text.find(from), std::string::npos) << from;
  write(path, text.replace(text.find(from), from.size(), to));
}

// Makes the manifest right for what is in the folder: only the tensors themselves are wrong then.
void sign(const CheckpointRef& ref) {
  Manifest m = read_manifest(ref);
  ManifestFile& file = m.files[file_name(Part::weights)];
  const std::string path = file_of(ref, Part::weights);
  file.bytes = int64_t(fs::file_size(path));
  file.crc32 = crc32_of_file(path, file.bytes);
  const SafetensorsReader reader(path);
  for (const SafetensorsEntry& e : reader.entries()) {
    const Buffer bytes(e.dtype, {e.numel()});
    reader.read_slice(e.name, 0, bytes.view());
    file.tensors[e.name].crc32 = crc32_of(bytes.view().data, bytes.view().bytes());
  }
  write(ref.folder + "/manifest.json", format_manifest(m, "manifest"));
}

struct Damage {
  const char* what;
  std::function<void(const CheckpointRef&)> make;
  std::vector<std::string> expect;  // in the message
};

const State state;

std::vector<Damage> damages() {
  const auto in = [](const CheckpointRef& r, const char* name) { return r.folder + "/" + name; };
  const auto weights = [](const CheckpointRef& r) { return file_of(r, Part::weights); };
  const Tensor w = state.w.view(), b = state.b.view();
  static const Buffer wide(DType::f64, {33, 7}), cut(DType::f32, {7, 33}),
      half(DType::i32, {33, 7});
  return {
      {"one byte missing",
       [=](auto& r) { fs::resize_file(weights(r), fs::file_size(weights(r)) - 1); },
       {"weights.safetensors: expected ", " bytes, got "}},
      {"empty file",
       [=](auto& r) { write(weights(r), ""); },
       {"weights.safetensors: expected ", " bytes, got 0"}},
      {"one bit flipped in a tensor",
       [=](auto& r) { flip_byte(weights(r), int64_t(fs::file_size(weights(r))) - 3); },
       {"expected crc32", "got", "1 tensors changed: 'w'"}},
      {"one bit flipped in the optimizer",
       [=](auto& r) {
         flip_byte(file_of(r, Part::optimizer),
                   int64_t(fs::file_size(file_of(r, Part::optimizer))) - 3);
       },
       {"optimizer.safetensors: expected crc32", "tensors changed: 'w.m'"}},
      {"one letter changed in the header",
       [=](auto& r) { replace(weights(r), "\"pt\"", "\"pu\""); },
       {"expected crc32", "the header changed"}},
      {"header is no JSON", [=](auto& r) { flip_byte(weights(r), 8); }, {"weights.safetensors"}},
      {"file missing",
       [=](auto& r) { fs::remove(file_of(r, Part::optimizer)); },
       {"optimizer.safetensors: open: No such file"}},
      {"a folder in the place of a file",
       [=](auto& r) {
         fs::remove(weights(r));
         fs::create_directory(weights(r));
       },
       {"weights.safetensors is no regular file"}},
      {"a link to nowhere",
       [=](auto& r) {
         fs::remove(weights(r));
         fs::create_symlink("/nowhere/weights", weights(r));
       },
       {"weights.safetensors: open: No such file"}},
      {"manifest missing",
       [=](auto& r) { fs::remove(in(r, "manifest.json")); },
       {"manifest.json: open: No such file"}},
      {"manifest cut",
       [=](auto& r) { write(in(r, "manifest.json"), read(in(r, "manifest.json")).substr(0, 200)); },
       {"manifest.json", "parse error"}},
      {"manifest empty",
       [=](auto& r) { write(in(r, "manifest.json"), ""); },
       {"manifest.json", "parse error"}},
      {"number changed in the manifest",
       [=](auto& r) { replace(in(r, "manifest.json"), "\"seed\": -7", "\"seed\": -8"); },
       {"manifest.json", "expected crc32"}},
      {"manifest of another step",
       [=](auto& r) {
         fs::copy_file(parent_of(r.folder) + "/step-00000001/manifest.json", in(r, "manifest.json"),
                       fs::copy_options::overwrite_existing);
       },
       {"manifest.json: expected step 2, got 1"}},
      {"manifest of another format version",
       [=](auto& r) { replace(in(r, "manifest.json"), "\"version\": 2", "\"version\": 9"); },
       {"format version 9, this build reads 2 and 3"}},
      {"weights of another step",
       [=](auto& r) {
         fs::copy_file(parent_of(r.folder) + "/step-00000001/weights.safetensors", weights(r),
                       fs::copy_options::overwrite_existing);
       },
       {"expected crc32", "tensors changed: 'w'"}},
      {"wrong dtype, other size",
       [=](auto& r) {
         write_weights(weights(r), {{"w", wide.view()}, {"b", b}});
       },
       {"bytes, got", "tensor 'w': expected f32 [33, 7], got f64 [33, 7]"}},
      {"wrong dtype, same size",
       [=](auto& r) {
         write_weights(weights(r), {{"w", half.view()}, {"b", b}});
       },
       {"tensor 'w': expected f32 [33, 7], got i32 [33, 7]"}},
      {"wrong shape",
       [=](auto& r) {
         write_weights(weights(r), {{"w", cut.view()}, {"b", b}});
       },
       {"tensor 'w': expected f32 [33, 7], got f32 [7, 33]"}},
      {"tensor missing",
       [=](auto& r) {
         write_weights(weights(r), {{"w", w}});
       },
       {"1 tensors missing: 'b'"}},
      {"tensor too many",
       [=](auto& r) {
         write_weights(weights(r), {{"w", w}, {"b", b}, {"x", b}});
       },
       {"1 tensors that were not saved: 'x'"}},
      {"NaN in the weights, checksums right",
       [=](auto& r) {
         const Buffer nan(w);
         copy(w, nan.view());
         nan.view().as<float>()[3] = NAN;
         write_weights(weights(r), {{"w", nan.view()}, {"b", b}});
         sign(r);
       },
       {"tensor 'w': 1 of 231 elements are not finite"}},
      {"config edited",
       [=](auto& r) { write(in(r, "config.yaml"), "model: {layers: 4}\n"); },
       {"config.yaml: expected crc32"}},
      {"config missing",
       [=](auto& r) { fs::remove(in(r, "config.yaml")); },
       {"config.yaml: open: No such file"}},
      {"a file in the place of the checkpoint",
       [=](auto& r) {
         fs::remove_all(r.folder);
         write(r.folder, "");
       },
       {"manifest.json: open: Not a directory"}},
      {"an empty folder",
       [=](auto& r) {
         fs::remove_all(r.folder);
         fs::create_directory(r.folder);
       },
       {"manifest.json: open: No such file"}},
  };
}

class CheckpointDamage : public CheckpointTest {
 protected:
  CheckpointDamage() : CheckpointTest(quick_folder()) {}
};

TEST_F(CheckpointDamage, EachIsSkippedWithAMessage) {
  for (const Damage& d : damages()) {
    fs::remove_all(run_);
    save(run_, 1);
    const CheckpointRef ref = save(run_, 2).saved;
    d.make(ref);
    std::string text = find(1);
    EXPECT_NE(text, "") << d.what << " is not seen";
    expect_in(text, d.expect);
    EXPECT_TRUE(loads({file(1, "").substr(0, root_.size() + 14), 1}, 1)) << d.what;
    // It is in the way of no later save, and stays to be looked at.
    EXPECT_EQ(message_of([&] { save(run_, 3, {.keep_last = 1}); }), "no error") << d.what;
    EXPECT_EQ(find(3), "") << d.what;
    for (size_t at; (at = text.find(root_ + "/")) != std::string::npos;)
      text.erase(at, root_.size() + 1);
    std::cout << "  " << d.what << "\n      " << text;
  }
}

TEST_F(CheckpointDamage, NoneIsLeft) {
  for (int64_t step = 1; step <= 3; ++step) {
    save(run_, step);
    fs::resize_file(file(step, "weights.safetensors"), 3);
  }
  std::vector<std::string> problems;
  EXPECT_FALSE(find_newest_valid(run_, &problems));
  EXPECT_EQ(problems.size(), 3u);
}

// Of no use as root, whom permissions do not stop: a child asks as nobody.
TEST_F(CheckpointDamage, AFileThatMayNotBeRead) {
  for (int64_t step : {1, 2}) save(run_, step);
  ::chmod(base_.c_str(), 0755);
  ::chmod(file(2, "weights.safetensors").c_str(), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(77);
    expect_in(find(1), {"weights.safetensors: open: Permission denied"});
    std::fflush(nullptr);
    ::_exit(HasFailure());
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  if (WEXITSTATUS(status) == 77)
    GTEST_SKIP() << "root, who may read anything, and cannot become nobody";
  EXPECT_EQ(status, 0);
}

// Times are of no account: which checkpoint is newer, which goes, and whether one is valid.
TEST_F(CheckpointDamage, ClocksThatJump) {
  const auto set_time = [](const std::string& path, int64_t seconds) {
    const timespec t{seconds, 0}, times[2] = {t, t};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  };
  const int64_t year_2100 = 4102444800;
  for (int64_t step = 1; step <= 5; ++step) {
    save(run_, step, {.keep_last = 5});
    const int64_t when = step == 5 ? 0 : step == 2 ? year_2100 : 1000 * (10 - step);
    for (const auto& entry : fs::directory_iterator(file(step, ""))) set_time(entry.path(), when);
    set_time(file(step, ""), when);
  }
  EXPECT_EQ(find(5), "");  // of 1970, the others are later
  set_time(root_, year_2100);
  save(run_, 6, {.keep_last = 3});
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000004", "step-00000005", "step-00000006"}));
}

TEST_F(CheckpointDamage, LinkedFolders) {
  fs::create_directories(base_ + "/big-disk/checkpoints");
  fs::create_directories(run_);
  fs::create_directory_symlink(base_ + "/big-disk/checkpoints", root_);
  save(run_, 1);
  save(run_, 2);
  // Somebody moves a checkpoint away and leaves a link.
  fs::rename(file(1, ""), base_ + "/moved");
  fs::create_directory_symlink(base_ + "/moved", root_ + "/step-00000001");
  EXPECT_TRUE(loads({root_ + "/step-00000001", 1}, 1));
  fs::resize_file(file(2, "manifest.json"), 9);
  EXPECT_NE(find(1), "");
  save(run_, 2);
  save(run_, 3, {.keep_last = 2});  // removes the link, and what it leads to is not ours
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000002", "step-00000003"}));
  EXPECT_TRUE(fs::exists(base_ + "/moved/manifest.json"));
}

}  // namespace
}  // namespace sluice
