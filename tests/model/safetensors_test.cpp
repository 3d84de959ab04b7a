// tests/model/safetensors_test.cpp -- round trips of the writer and reader, and files that are bad.
#include "model/export/safetensors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/tensor/buffer.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class Safetensors : public testing::Test {
 protected:
  Safetensors() {
    std::string pattern = testing::TempDir() + "safetensors-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    path_ = folder_ + "/x.safetensors";
  }
  ~Safetensors() override { fs::remove_all(folder_); }

  // A file of this header and so many bytes of data.
  void write_raw(const std::string& header, size_t data_bytes) const {
    std::ofstream out(path_, std::ios::binary);
    const uint64_t length = header.size();
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << header << std::string(data_bytes, '\1');
  }
  void write_bytes(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  std::string bytes() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  size_t files() const {
    return size_t(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  std::string folder_, path_;
};

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

// Bytes 0, 1, 2, ... in a tensor of any type.
void fill_bytes(const Tensor& t, int first) {
  for (int64_t i = 0; i < t.bytes(); ++i) static_cast<uint8_t*>(t.data)[i] = uint8_t(first + i);
}
bool equal_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, size_t(a.bytes())) == 0;
}

TEST_F(Safetensors, RoundTripOfEveryTypeInAnyOrder) {
  const std::vector<DType> types = {DType::u8,  DType::f32, DType::bf16,
                                    DType::i64, DType::i32, DType::f64};
  std::vector<SafetensorsEntry> entries;
  std::vector<Buffer> tensors;
  for (size_t i = 0; i < types.size(); ++i) {
    entries.push_back({.name = name(types[i]), .dtype = types[i], .shape = {3, 5}});
    tensors.emplace_back(types[i], std::initializer_list<int64_t>{3, 5});
    fill_bytes(tensors.back().view(), int(i));
  }
  entries.push_back({.name = "empty", .dtype = DType::f32, .shape = {0, 7}});
  Buffer empty(DType::f32, {0, 7});
  {
    SafetensorsWriter writer(path_, entries, {{"format", "pt"}, {"quote\"\\", "\xC3\xA9\n"}});
    for (size_t i = types.size(); i-- > 0;) writer.write(name(types[i]), tensors[i].view());
    writer.write("empty", empty.view());
    EXPECT_FALSE(fs::exists(path_));
    writer.finish();
  }
  EXPECT_EQ(files(), 1u);

  const SafetensorsReader reader(path_);
  EXPECT_EQ(reader.entries().size(), types.size() + 1);
  EXPECT_EQ(reader.metadata().at("quote\"\\"), "\xC3\xA9\n");
  for (const auto& e : reader.entries()) EXPECT_EQ(e.begin % size_of(e.dtype), 0) << e.name;
  uint64_t length = 0;
  std::memcpy(&length, bytes().data(), 8);
  EXPECT_EQ(length % 8, 0u);
  for (size_t i = 0; i < types.size(); ++i) {
    Buffer got(types[i], {3, 5});
    reader.read(name(types[i]), got.view());
    EXPECT_TRUE(equal_bytes(got.view(), tensors[i].view())) << name(types[i]);
  }
  reader.read("empty", empty.view());
  EXPECT_EQ(reader.find("none"), nullptr);
}

TEST_F(Safetensors, SlicesAndStridedRows) {
  Buffer wide(DType::f32, {4, 9}), whole(DType::f32, {4, 5});
  test::fill_normal(wide.view(), 1);
  const Tensor columns = wide.view().columns(2, 5);  // [4, 5], strided
  for (int64_t i = 0; i < 20; ++i) test::set_element(whole.view(), i, test::element(columns, i));
  const Tensor flat = whole.view().reshape({20});

  SafetensorsWriter writer(path_, {{.name = "a", .dtype = DType::f32, .shape = {4, 5}},
                                   {.name = "b", .dtype = DType::f32, .shape = {4, 5}}});
  writer.write("a", columns);
  writer.write_slice("b", 13, flat.rows(13, 7));
  writer.write_slice("b", 0, flat.rows(0, 3));
  expect_in(message_of([&] { writer.write_slice("b", 2, flat.rows(2, 4)); }),
            {"'b'", "2 to 6", "written already"});
  expect_in(message_of([&] { writer.write_slice("b", 12, flat.rows(12, 2)); }),
            {"written already"});
  expect_in(message_of([&] { writer.write_slice("b", 19, flat.rows(0, 2)); }),
            {"'b'", "elements 19 to 21 of f32 [4, 5]"});
  expect_in(message_of([&] { writer.finish(); }), {"'b'", "10 of 20 elements"});
  writer.write_slice("b", 3, flat.rows(3, 10));
  writer.finish();

  const SafetensorsReader reader(path_);
  Buffer a(DType::f32, {4, 5}), b(DType::f32, {4, 9}), piece(DType::f32, {6});
  reader.read("a", a.view());
  EXPECT_TRUE(equal_bytes(a.view(), whole.view()));
  test::fill(b.view(), 7);
  reader.read("b", b.view().columns(1, 5));  // into strided rows; the other columns stay
  for (int64_t n = 0; n < 4; ++n)
    for (int64_t c = 0; c < 9; ++c)
      EXPECT_EQ(b.view().row<float>(n)[c], c < 1 || c > 5 ? 7 : whole.view().row<float>(n)[c - 1]);
  reader.read_slice("b", 4, piece.view());
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(piece.view().as<float>()[i], flat.as<float>()[4 + i]);
}

TEST_F(Safetensors, WriterRefuses) {
  Buffer t(DType::f32, {2, 3});
  const std::vector<SafetensorsEntry> one = {{.name = "w", .dtype = DType::f32, .shape = {2, 3}}};
  {
    SafetensorsWriter writer(path_, one);
    Buffer other(DType::f32, {3, 2});
    expect_in(message_of([&] { writer.write("w", other.view()); }),
              {path_, "'w'", "declared as f32 [2, 3]", "got f32 [3, 2]"});
    expect_in(message_of([&] { writer.write("v", t.view()); }), {path_, "'v' was not declared"});
    writer.write("w", t.view());
    expect_in(message_of([&] { writer.write("w", t.view()); }), {"written already"});
  }
  EXPECT_EQ(files(), 0u) << "an unfinished writer leaves nothing";
  expect_in(message_of([&] {
              SafetensorsWriter(path_, {one[0], one[0]});
            }),
            {"'w' is declared twice"});
  expect_in(message_of([&] {
              SafetensorsWriter(path_, {{.name = "a\nb", .dtype = DType::f32, .shape = {1}}});
            }),
            {"control characters"});
  expect_in(message_of([&] {
              SafetensorsWriter(path_, {{.name = "\xFF", .dtype = DType::f32, .shape = {1}}});
            }),
            {"header", "UTF-8"});
  EXPECT_EQ(files(), 0u);
  const std::string nowhere = folder_ + "/none/x.safetensors";
  expect_in(message_of([&] { SafetensorsWriter(nowhere, one); }),
            {nowhere, "create", "No such file or directory"});
}

// A full disk, played by a limit on file sizes, in a process of its own.
TEST_F(Safetensors, FailedWritesKeepTheOldFile) {
  write_bytes("old");
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);  // then write() fails with EFBIG
    const rlimit limit = {8192, 8192};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = message_of([&] {
      Buffer t(DType::f32, {10000});
      SafetensorsWriter writer(path_, {{.name = "w", .dtype = DType::f32, .shape = {10000}}});
      writer.write("w", t.view());
      writer.finish();
    });
    const bool good = message.find(path_ + ".partial: write: File too large") != std::string::npos;
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(bytes(), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(Safetensors, ReaderSaysWhatDiffers) {
  write_raw(R"({"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})", 12);
  const SafetensorsReader reader(path_);
  Buffer f32(DType::f32, {2, 3}), turned(DType::bf16, {3, 2}), flat(DType::bf16, {6});
  expect_in(message_of([&] { reader.read("w", f32.view()); }),
            {path_, "'w'", "expected f32 [2, 3]", "the file has bf16 [2, 3]"});
  expect_in(message_of([&] { reader.read("w", turned.view()); }), {"bf16 [3, 2]", "bf16 [2, 3]"});
  expect_in(message_of([&] { reader.read("w", flat.view()); }), {"bf16 [6]", "bf16 [2, 3]"});
  expect_in(message_of([&] { reader.read("v", flat.view()); }), {path_, "no tensor 'v'"});
  fs::resize_file(path_, fs::file_size(path_) - 1);  // cut short behind the reader's back
  expect_in(message_of([&] { reader.read_slice("w", 0, flat.view()); }), {path_, "ends at byte"});
}

TEST_F(Safetensors, UnusualButGood) {
  write_raw("{}", 0);
  EXPECT_TRUE(SafetensorsReader(path_).entries().empty());
  write_raw("  {}   \n", 0);
  EXPECT_TRUE(SafetensorsReader(path_).entries().empty());
  // Not in order, a scalar, and an empty tensor between two others.
  write_raw(R"({"b":{"dtype":"I32","shape":[],"data_offsets":[4,8]},)"
            R"("e":{"dtype":"I32","shape":[2,0],"data_offsets":[4,4]},)"
            R"("a":{"data_offsets":[0,4],"shape":[1,1],"dtype":"I32"}})",
            8);
  const SafetensorsReader reader(path_);
  ASSERT_EQ(reader.entries().size(), 3u);
  EXPECT_EQ(reader.entries()[0].name, "a");
  Buffer scalar(DType::i32, {1});
  reader.read("b", scalar.view());
  EXPECT_EQ(scalar.view().as<int32_t>()[0], 0x01010101);
}

TEST_F(Safetensors, BadLengths) {
  const auto error = [&] { return message_of([&] { SafetensorsReader reader(path_); }); };
  expect_in(error(), {path_, "open", "No such file"});
  write_bytes("");
  expect_in(error(), {path_, "0 bytes, expected 8"});
  write_bytes("1234567");
  expect_in(error(), {"7 bytes, expected 8"});
  write_bytes(std::string(8, '\xFF'));
  expect_in(error(), {"header of 18446744073709551615 bytes"});
  const uint64_t large = 100'000'001, longer = 1000;
  write_bytes(std::string(reinterpret_cast<const char*>(&large), 8) + "{}");
  expect_in(error(), {"header of 100000001 bytes, the format allows 100000000"});
  write_bytes(std::string(reinterpret_cast<const char*>(&longer), 8) + "{}");
  expect_in(error(), {"header of 1000 bytes, the file has 2"});
  write_raw("", 0);
  expect_in(error(), {"bad JSON"});
  path_ = folder_;
  expect_in(error(), {folder_, "no regular file"});
}

struct BadHeader {
  std::string header;
  size_t data_bytes;
  std::vector<std::string> message;
};

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{" + entry("w", dtype, shape, offsets) + "}";
}

TEST_F(Safetensors, BadHeaders) {
  const std::string good = entry("w", "I32", "[1]", "[0,4]");
  const std::vector<BadHeader> cases = {
      // JSON
      {"\x01\xFF", 0, {"bad JSON"}},
      {"{\"\xFF\":{}}", 0, {"bad JSON", "UTF-8"}},
      {"{", 0, {"bad JSON"}},
      {"{} x", 0, {"bad JSON"}},
      {std::string("{}\0{", 4), 0, {"NUL at byte 2"}},
      {"\xEF\xBB\xBF{}", 0, {"byte order mark"}},
      {std::string(100000, '['), 0, {"expected an object, got an array"}},
      {"[]", 0, {"header: expected an object, got an array"}},
      {"17", 0, {"expected an object, got the number 17"}},
      // structure
      {R"({"w":1})", 0, {"'w': expected an object, got the number 1"}},
      {R"({"w":{"shape":[1],"data_offsets":[0,4]}})", 4, {"'w' has no dtype"}},
      {R"({"w":{"dtype":"I32","data_offsets":[0,4]}})", 4, {"'w' has no shape"}},
      {R"({"w":{"dtype":"I32","shape":[1]}})", 4, {"'w' has no data_offsets"}},
      {R"({"w":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, {"dtype: expected a string"}},
      {R"({"w":{"dtype":"I32","size":[1]}})", 4, {"unknown field 'size'"}},
      {R"({"w":{"dtype":"I32","dtype":"I32"}})", 4, {"field dtype appears twice"}},
      {R"({"__metadata__":{"a":1}})", 0, {"__metadata__: 'a': expected a string"}},
      {R"({"__metadata__":[]})", 0, {"'__metadata__': expected an object"}},
      {R"({"__metadata__":{"a":"","a":""}})", 0, {"__metadata__ has 'a' twice"}},
      {"{" + good + "," + good + "}", 4, {"'w' appears twice"}},
      {R"({"a\u0000b":{}})", 0, {"control characters"}},
      {"{\"" + std::string(65536, 'n') + "\":{}}", 0, {"nnn...' (65536 bytes)"}},
      {one("I32", "[[1]]", "[0,4]"), 4, {"shape: expected an integer >= 0, got an array"}},
      // numbers
      {one("I32", "[1]", "[-1,4]"), 4, {"data_offsets: expected an integer >= 0", "-1"}},
      {one("I32", "[1]", "[0,4.0]"), 4, {"data_offsets: expected an integer >= 0", "4.0"}},
      {one("I32", "[1]", "[0,1e400]"), 4, {"1e400"}},
      {one("I32", "[1]", "[0]"), 4, {"data_offsets has 1 numbers"}},
      {one("I32", "[1]", "[0,4,8]"), 4, {"data_offsets has 3 numbers"}},
      {one("I31", "[1]", "[0,4]"), 4, {"'w': unknown dtype 'I31'"}},
      {one("I32", "[2,18446744073709551614]", "[0,4]"), 4, {"overflows"}},
      {one("I32", "[2,9223372036854775807]", "[0,4]"), 4, {"overflows"}},
      {one("I32", "[2,2]", "[0,4]"), 4, {"i32 [2, 2] has 16 bytes, data_offsets [0, 4] have 4"}},
      // layout
      {one("I32", "[1]", "[4,0]"), 4, {"data_offsets [4, 0]"}},
      {one("I32", "[2]", "[0,8]"), 7, {"data_offsets [0, 8]", "7 bytes of data"}},
      {one("I32", "[1]", "[0,4]"), 9, {"4 bytes of data, the file has 9"}},
      {one("I32", "[1]", "[4,8]"), 8, {"hole of 4 bytes before tensor 'w'"}},
      {"{" + entry("a", "I32", "[2]", "[0,8]") + "," + entry("b", "I32", "[2]", "[4,12]") + "}",
       12,
       {"'b' at [4, 12] overlaps 'a', which ends at 8"}},
      {"{" + entry("a", "I32", "[2]", "[0,8]") + "," + entry("b", "I32", "[2]", "[0,8]") + "}",
       8,
       {"'b' at [0, 8] overlaps 'a'"}},
      {"{" + entry("a", "I32", "[1]", "[0,4]") + "," + entry("b", "I32", "[1]", "[8,12]") + "}",
       12,
       {"hole of 4 bytes before tensor 'b'"}},
  };
  for (const BadHeader& bad : cases) {
    SCOPED_TRACE(bad.header.substr(0, 200));
    write_raw(bad.header, bad.data_bytes);
    const std::string message = message_of([&] { SafetensorsReader reader(path_); });
    expect_in(message, {path_ + ":"});
    expect_in(message, bad.message);
  }
}

// Every file with one byte changed or cut off is read or refused, and nothing else.
TEST_F(Safetensors, EveryChangedByteIsReadOrRefused) {
  {
    SafetensorsWriter writer(path_, {{.name = "a", .dtype = DType::f32, .shape = {2, 2}},
                                     {.name = "b", .dtype = DType::u8, .shape = {3}}});
    Buffer a(DType::f32, {2, 2}), b(DType::u8, {3});
    writer.write("a", a.view());
    writer.write("b", b.view());
    writer.finish();
  }
  const std::string good = bytes();
  int refused = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {1, 2, 4, 8, 16, 32, 64, 128}) {
      std::string bad = good;
      bad[i] = char(bad[i] ^ flip);
      write_bytes(bad);
      refused += message_of([&] { SafetensorsReader reader(path_); }) != "no error";
    }
    write_bytes(good.substr(0, i));
    EXPECT_NE(message_of([&] { SafetensorsReader reader(path_); }), "no error") << i;
  }
  EXPECT_GT(refused, 500);  // bits of the header, other than within names and of padding
}

}  // namespace
}  // namespace sluice
