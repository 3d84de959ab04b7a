// tests/model/safetensors_corpus_test.cpp -- files made to harm: what is large, what leads
// elsewhere, and folders whose index lies. What is wrong with a header is in safetensors_test.cpp.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>

#include "kernels/tensor/buffer.h"
#include "model/export/engines/hf_reader.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_contains;

class Corpus : public ::testing::Test {
 protected:
  std::string at(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& header, size_t data) const {
    const uint64_t length = header.size();
    std::string bytes(reinterpret_cast<const char*>(&length), 8);
    replace_text(at(name), bytes + header + std::string(data, '\1'));
    return at(name);
  }
  // A file of one tensor of 4 bytes.
  void shard(const std::string& name, const std::string& tensor) const {
    write(name, R"({")" + tensor + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  }
  std::string index_error(const std::string& json) const {
    replace_text(at("model.safetensors.index.json"), json);
    return error_of([&] { HfWeightFiles files(folder_ / ""); });
  }

  test::Folder folder_;
};

int64_t peak_kib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// As many entries as a header may hold, all alike but for the name.
TEST_F(Corpus, AHugeHeaderIsRefusedInBoundedTimeAndMemory) {
  std::string header = "{";
  for (int i = 0; header.size() < 99'000'000; ++i)
    header += cat(i == 0 ? "" : ",", '"', i, R"(":{"dtype":"U8","shape":[],"data_offsets":[0,1]})");
  const std::string path = write("huge", header + "}", 1);
  header.clear();
  header.shrink_to_fit();
  const int64_t before = peak_kib();
  const auto start = std::chrono::steady_clock::now();
  expect_contains(error_of([&] { SafetensorsReader reader(path); }), {"overlaps"});
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("seconds", std::to_string(seconds));
  RecordProperty("kib", std::to_string(peak_kib() - before));
  EXPECT_LT(peak_kib() - before, 2'000'000);
  EXPECT_LT(seconds, 120);
}

TEST_F(Corpus, TenTensorsOnOneRange) {
  std::string header = "{";
  for (int i = 0; i < 10; ++i)
    header += cat(i == 0 ? "" : ",", R"("t)", i,
                  R"(":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]})");
  const std::string path = write("overlap", header + "}", 16);
  expect_contains(error_of([&] { SafetensorsReader reader(path); }),
                  {"'t1' at [0, 16] overlaps 't0', which ends at 16"});
}

TEST_F(Corpus, ATailAndTypesOfLessThanAByte) {
  std::string path = write("tail", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                           4 + std::string("extra_bogus").size());
  expect_contains(error_of([&] { SafetensorsReader reader(path); }),
                  {"4 bytes of data, the file has 15"});
  path = write("half", R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2);
  expect_contains(error_of([&] { SafetensorsReader reader(path); }), {"unknown dtype 'F4'"});
}

// Names are looked up and never opened.
TEST_F(Corpus, ANameIsNoPath) {
  shard("x", "../../etc/passwd");
  const SafetensorsReader reader(at("x"));
  const Buffer value(DType::f32, {1});
  reader.read("../../etc/passwd", value.view());
  EXPECT_EQ(names_in(folder_ / ""), std::vector<std::string>{"x"});
}

TEST_F(Corpus, AnIndexThatLies) {
  shard("a.safetensors", "a");
  shard("b.safetensors", "b");
  EXPECT_EQ(index_error(R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})"), "no error");
  expect_contains(index_error(R"({"weight_map":{"a":"a.safetensors","b":"none.safetensors"}})"),
                  {"none.safetensors: open", "No such file"});
  expect_contains(index_error(R"({"weight_map":{"a":"a.safetensors","b":"a.safetensors"}})"),
                  {"a.safetensors: has no b, which the index says is there"});
  expect_contains(index_error(R"({"weight_map":{"a":"b.safetensors","b":"a.safetensors"}})"),
                  {"b.safetensors: has no a, which is in", "a.safetensors"});
  expect_contains(index_error(R"({"weight_map":{"a":"a.safetensors","a":"b.safetensors"}})"),
                  {"\"a\" is given twice"});
  for (const char* elsewhere : {"../a.safetensors", "/etc/a.safetensors", "..", "a"})
    expect_contains(index_error(cat(R"({"weight_map":{"a":")", elsewhere, R"("}})")),
                    {"expected one of this folder"});
  expect_contains(index_error(R"({"weight_map":{"a":3}})"), {"model.safetensors.index.json"});
  expect_contains(index_error(R"({"weight_map":{}})"), {"names no tensor"});
  expect_contains(index_error("{"), {"model.safetensors.index.json", "parse error"});
  shard("b.safetensors", "a");
  expect_contains(index_error(R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})"),
                  {"b.safetensors: a is in another file, too"});
  shard("b.safetensors", "c");
  expect_contains(index_error(R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})"),
                  {"c is not in the index"});
}

}  // namespace
}  // namespace sluice
