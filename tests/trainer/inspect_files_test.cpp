// tests/trainer/inspect_files_test.cpp -- what `sluice inspect` says of other engines' files.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/export/gguf.h"
#include "model/export/safetensors.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "trainer/loop/inspect.h"

namespace sluice {
namespace {

using test::expect_contains;
using Json = nlohmann::ordered_json;

class InspectFiles : public ::testing::Test {
 protected:
  std::string gguf() const {
    const std::string path = folder_ / "x.gguf";
    GgufWriter w(path, {{"general.architecture", GgufValue::text("kimi-linear")}},
                 {{.name = "w", .type = GgufType::bf16, .shape = {2, 2}}});
    const float x[4] = {3, -4, 0, 0};
    w.append("w", x, 4);
    w.finish();
    return path;
  }
  std::string hf() const {
    replace_text(folder_ / "config.json", R"({"model_type":"kimi_linear","a":{"b":[1,2]}})");
    for (const std::string name : {"a", "b"}) {
      SafetensorsWriter w(folder_ / (name + ".safetensors"), {{.name = name, .shape = {2}}});
      float x[2] = {1, name == "a" ? 2.0f : -8.0f};
      w.write(name, make_tensor(x, DType::f32, Device::cpu, {2}));
      w.finish();
    }
    replace_text(folder_ / "model.safetensors.index.json",
                 R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})");
    return folder_ / "";
  }
  test::Folder folder_;
};

TEST_F(InspectFiles, AGgufFile) {
  const std::string path = gguf();
  int64_t read = 0, all = 0;
  Json report =
      inspect(path, {.progress = [&](int64_t done, int64_t of) { read = done, all = of; }});
  EXPECT_EQ(read, all);
  const Json& f = report.at("files");
  EXPECT_EQ(f.at("kind"), "GGUF");
  EXPECT_EQ(f.at("state"), "valid");
  EXPECT_EQ(f.at("facts").at("general.architecture"), "\"kimi-linear\"");
  EXPECT_EQ(f.at("elements"), 4);
  EXPECT_EQ(f.at("tensors")[0].at("type"), "bf16 [2, 2]");
  EXPECT_EQ(f.at("tensors")[0].at("norm"), 5.0);
  EXPECT_EQ(f.at("tensors")[0].at("min"), -4.0);
  expect_contains(inspect_text(report),
                  {"GGUF, 1 tensors, 4 elements", "general.architecture", "w"});

  std::string bytes = test::file_bytes(path);
  bytes.resize(bytes.size() - 40);
  test::put_bytes(path, bytes);
  report = inspect(path, {});
  EXPECT_EQ(report.at("files").at("state"), "broken");
  expect_contains(inspect_text(report), {"BROKEN", "x.gguf", "the file has"});
}

// Of a type that has a size here and no meaning.
TEST_F(InspectFiles, AGgufFileOfOtherTypes) {
  gguf();
  std::string bytes = test::file_bytes(folder_ / "x.gguf");
  const size_t type = bytes.find(std::string("\x1e\0\0\0", 4));
  ASSERT_NE(type, std::string::npos);
  bytes[type] = 25;  // i16, of the same size
  test::put_bytes(folder_ / "x.gguf", bytes);
  const Json report = inspect(folder_ / "x.gguf", {});
  EXPECT_EQ(report.at("files").at("state"), "valid");
  EXPECT_EQ(report.at("files").at("tensors")[0].at("type"), "i16 [2, 2]");
  EXPECT_TRUE(report.at("files").at("tensors")[0].at("norm").is_null());
}

TEST_F(InspectFiles, AFolder) {
  const Json report = inspect(hf(), {});
  const Json& f = report.at("files");
  EXPECT_EQ(f.at("state"), "valid");
  EXPECT_EQ(f.at("facts").at("model_type"), "kimi_linear");
  EXPECT_EQ(f.at("facts").at("a.b"), Json({1, 2}));
  ASSERT_EQ(f.at("tensors").size(), 2u);
  EXPECT_EQ(f.at("tensors")[1].at("file"), "b.safetensors");
  EXPECT_EQ(f.at("tensors")[1].at("min"), -8.0);
  EXPECT_EQ(inspect(folder_ / "b.safetensors", {}).at("files").at("facts").at("format"), "pt");
}

TEST_F(InspectFiles, ABrokenFolderIsShownAsFarAsItGoes) {
  hf();
  std::string bytes = test::file_bytes(folder_ / "a.safetensors");
  bytes.pop_back();
  test::put_bytes(folder_ / "a.safetensors", bytes);
  replace_text(folder_ / "config.json", "{");
  const Json report = inspect(folder_ / "", {});
  EXPECT_EQ(report.at("files").at("state"), "broken");
  EXPECT_EQ(report.at("files").at("problems").size(), 3u);  // config, index, file
  EXPECT_EQ(report.at("files").at("tensors").size(), 1u);
  expect_contains(inspect_text(report), {"parse error", "a.safetensors", "b.safetensors"});
}

TEST_F(InspectFiles, NumbersThatAreNotFinite) {
  const float bad[2] = {NAN, 1};
  SafetensorsWriter w(folder_ / "n.safetensors", {{.name = "n", .shape = {2}}});
  w.write("n", make_tensor(const_cast<float*>(bad), DType::f32, Device::cpu, {2}));
  w.finish();
  const Json report = inspect(folder_ / "n.safetensors", {});
  EXPECT_EQ(report.at("files").at("state"), "broken");
  expect_contains(inspect_text(report), {"n: 1 not finite"});
}

}  // namespace
}  // namespace sluice
