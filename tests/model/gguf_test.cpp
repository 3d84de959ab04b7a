// tests/model/gguf_test.cpp -- GGUF files: round trips, the bytes of the format, bad ones.
#include "model/export/gguf.h"

#include <gtest/gtest.h>

#include "tests/support/folder.h"
#include "tests/support/message.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_contains;

class Gguf : public ::testing::Test {
 protected:
  GgufKeys keys() const {
    return {{"general.architecture", GgufValue::text("kimi-linear")},
            {"a.count", GgufValue::u32(4294967295)},
            {"a.eps", GgufValue::f32(1e-5)},
            {"a.flag", GgufValue::boolean(true)},
            {"a.kinds", GgufValue::i32_list({0, -1, 7})},
            {"a.words", GgufValue::list({"x", "", "\xC4\xA0y"})}};
  }
  std::vector<GgufTensor> tensors() const {
    return {{.name = "t", .type = GgufType::f32, .shape = {2, 3}},
            {.name = "h", .type = GgufType::f16, .shape = {1, 2, 1, 4}},
            {.name = "q", .type = GgufType::q8_0, .shape = {2, 32}},
            {.name = "b", .type = GgufType::bf16, .shape = {5}}};
  }
  void write() const {
    GgufWriter w(path_, keys(), tensors());
    for (const GgufTensor& t : tensors()) {
      std::vector<float> x(size_t(t.numel()));
      for (size_t i = 0; i < x.size(); ++i) x[i] = float(i);
      const int64_t first = t.type == GgufType::q8_0 ? 32 : 1;  // in two pieces
      w.append(t.name, x.data(), first);
      w.append(t.name, x.data() + first, t.numel() - first);
    }
    EXPECT_FALSE(exists(path_));
    w.finish();
  }
  std::string error() const {
    return error_of([&] { GgufReader r(path_); });
  }
  std::string error_with(const std::string& bytes) const {
    test::put_bytes(path_, bytes);
    return error();
  }

  test::Folder folder_;
  const std::string path_ = folder_ / "x.gguf";
};

template <class T>
std::string raw(T x) {
  return {reinterpret_cast<const char*>(&x), sizeof x};
}
std::string text(const std::string& s) {
  return raw(uint64_t(s.size())) + s;
}
std::string head(uint64_t tensors, uint64_t keys) {
  return "GGUF" + raw(uint32_t(3)) + raw(tensors) + raw(keys);
}
std::string tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                   uint64_t offset) {
  std::string s = text(name) + raw(uint32_t(dims.size()));
  for (const uint64_t d : dims) s += raw(d);
  return s + raw(type) + raw(offset);
}
std::string padded(std::string s, size_t data) {
  s.resize((s.size() + 31) / 32 * 32, '\0');
  return s + std::string(data, '\1');
}

TEST_F(Gguf, RoundTrip) {
  write();
  const GgufReader r(path_);
  ASSERT_EQ(r.keys().size(), keys().size());
  for (size_t i = 0; i < r.keys().size(); ++i) {
    EXPECT_EQ(r.keys()[i].first, keys()[i].first);
    if (r.keys()[i].first == "a.eps")
      EXPECT_EQ(std::get<std::vector<double>>(r.keys()[i].second.values)[0], double(1e-5f));
    else
      EXPECT_EQ(r.keys()[i].second.values, keys()[i].second.values) << r.keys()[i].first;
  }
  EXPECT_EQ(to_string(*r.find("a.kinds")), "[0, -1, 7] (3)");
  EXPECT_EQ(to_string(*r.find("a.flag")), "true");
  EXPECT_EQ(r.find("b"), nullptr);
  ASSERT_EQ(r.tensors().size(), 4u);
  for (const GgufTensor& t : r.tensors()) {
    EXPECT_EQ(t.begin % 32, 0);
    std::vector<float> x(size_t(t.numel()));
    r.read(t, 0, t.numel(), x.data());
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], float(i), 0.3f) << to_string(t);
  }
  EXPECT_EQ(to_string(r.tensors()[1]), "f16 [1, 2, 1, 4]");
  float two[2];
  r.read(r.tensors()[0], 3, 2, two);
  EXPECT_EQ(two[0], 3);
  expect_contains(error_of([&] { r.read(r.tensors()[0], 5, 2, two); }), {"elements 5 to 7 of 6"});
}

// Written out by hand from the format's description.
TEST_F(Gguf, TheBytes) {
  {
    GgufWriter w(path_, {{"k", GgufValue::u32(7)}, {"l", GgufValue::list({"ab"})}},
                 {{.name = "w", .type = GgufType::f32, .shape = {1, 2}}});
    const float x[2] = {1, 2};
    w.append("w", x, 2);
    w.finish();
  }
  std::string expected = head(1, 2) + text("k") + raw(uint32_t(4)) + raw(uint32_t(7)) + text("l") +
                         raw(uint32_t(9)) + raw(uint32_t(8)) + raw(uint64_t(1)) + text("ab") +
                         tensor("w", {2, 1}, 0, 0);
  expected.resize((expected.size() + 31) / 32 * 32, '\0');
  expected += raw(1.0f) + raw(2.0f) + std::string(24, '\0');
  EXPECT_EQ(test::file_bytes(path_), expected);
}

TEST_F(Gguf, WriterRefuses) {
  const float x[64] = {};
  {
    GgufWriter w(path_, keys(), tensors());
    w.append("t", x, 4);
    expect_contains(error_of([&] { w.append("t", x, 3); }), {"tensor t: 7 of 6 elements"});
    expect_contains(error_of([&] { w.append("u", x, 1); }), {"u was not declared"});
    expect_contains(error_of([&] { w.append("q", x, 31); }), {"tensor q", "blocks of 32"});
    expect_contains(error_of([&] { w.finish(); }), {"tensor b: 0 of 5 elements were written"});
  }
  EXPECT_TRUE(names_in(folder_ / "").empty()) << "an unfinished writer leaves nothing";
  const auto declare = [&](GgufTensor t) { return error_of([&] { GgufWriter(path_, {}, {t}); }); };
  expect_contains(declare({.name = "q", .type = GgufType::q8_0, .shape = {2, 40}}),
                  {"q8_0 [2, 40]", "whole blocks of 32"});
  expect_contains(declare({.name = std::string(64, 'n'), .shape = {1}}),
                  {"expected 1 to 63 bytes"});
  expect_contains(declare({.name = "r", .shape = {1, 1, 1, 1, 1}}), {"rank 5"});
  expect_contains(error_of([&] {
                    GgufWriter(path_, {{"k", GgufValue::u32(1)}, {"k", GgufValue::u32(2)}}, {});
                  }),
                  {"key k twice"});
}

TEST_F(Gguf, BadFiles) {
  const std::string u32 = raw(uint32_t(4)), one = raw(uint32_t(1));
  const auto key = [&](uint32_t type, const std::string& value) {
    return head(0, 1) + text("key") + raw(type) + value;
  };
  const std::string list = raw(uint32_t(9));
  const uint64_t most = ~uint64_t(0);
  struct Bad {
    std::string bytes;
    std::vector<std::string> message;
  };
  const std::vector<Bad> cases = {
      {"", {"0 bytes, expected 24"}},
      {std::string(23, 'G'), {"23 bytes, expected 24"}},
      {"GGML" + std::string(20, '\0'), {"does not begin with GGUF"}},
      {"GGUF" + raw(uint32_t(1)) + std::string(16, '\0'), {"version 1, expected 2 or 3"}},
      {"GGUF" + raw(uint32_t(0x03000000)) + std::string(16, '\0'), {"big-endian"}},
      {head(0, most), {"keys: 18446744073709551615 of at least 13 bytes"}},
      {head(most, 0), {"tensors: 18446744073709551615 of at least 25 bytes"}},
      {head(1, 0), {"tensors: 1 of at least 25 bytes at byte 24, 0 are left"}},
      // keys
      {head(0, 1) + text("") + u32 + one, {"key '', expected 1 to 1024 bytes"}},
      {head(0, 1) + raw(most) + u32 + one, {"a key: 18446744073709551615"}},
      {head(0, 1) + text(std::string(2000, 'k')) + u32 + one, {"kkk...' (2000 bytes)"}},
      {head(0, 2) + text("k") + u32 + one + text("k") + u32 + one, {"key 'k' appears twice"}},
      {key(13, one), {"key 'key': type 13, expected one of 0 to 12"}},
      {key(4, "\1\1\1"), {"key 'key': 1 of at least 4 bytes at byte 39, 3 are left"}},
      {key(7, "\2"), {"a boolean of 2"}},
      {key(8, raw(most)), {"key 'key': 18446744073709551615"}},
      {key(9, raw(uint32_t(9)) + raw(uint64_t(1)) + u32), {"type 9 of a list"}},
      {key(9, raw(uint32_t(8)) + raw(most)), {"of at least 8 bytes"}},
      {key(9, raw(uint32_t(5)) + raw(uint64_t(3)) + std::string(8, '\0')),
       {"3 of at least 4 bytes"}},
      // tensors
      {head(1, 0) + tensor("", {1}, 0, 0), {"tensor '', expected 1 to 1024"}},
      {head(1, 0) + tensor("w", {1, 1, 1, 1, 1}, 0, 0), {"'w': rank 5, expected 4 at most"}},
      {head(1, 0) + tensor("w", {2, most}, 0, 0), {"'w': its number of elements overflows"}},
      {head(1, 0) + tensor("w", {1ull << 40, 1ull << 40}, 0, 0), {"overflows"}},
      {head(1, 0) + tensor("w", {0, 1ull << 40, 1ull << 40}, 0, 0), {"overflows"}},  // by a fuzzer
      {head(1, 0) + tensor("w", {1ull << 62}, 0, 0), {"more bytes than 64 bits"}},
      {head(1, 0) + tensor("w", {1}, 99, 0), {"'w': unknown element type 99"}},
      {head(1, 0) + tensor("w", {33}, 8, 0), {"rows of 33, expected a multiple of 32"}},
      {head(1, 0) + tensor("w", {1}, 0, most), {"'w': offset 18446744073709551615"}},
      {padded(head(1, 0) + tensor("w", {1}, 0, 32), 36), {"'w': begins at byte"}},
      {padded(head(1, 0) + tensor("w", {2}, 0, 0), 7), {"'w': f32 [2] has 8 bytes from byte"}},
      {padded(head(1, 0) + tensor("w", {2}, 0, 0), 33), {"its tensors end at"}},
      {padded(head(2, 0) + tensor("w", {2}, 0, 0) + tensor("v", {2}, 0, 0), 64),
       {"'v': begins at byte"}},
      {padded(head(2, 0) + tensor("w", {2}, 0, 0) + tensor("v", {2}, 0, 64), 96),
       {"'v': begins at byte"}},
      {padded(head(2, 0) + tensor("w", {2}, 0, 0) + tensor("w", {2}, 0, 32), 64),
       {"tensor 'w' appears twice"}},
  };
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.message[0]);
    const std::string message = error_with(bad.bytes);
    expect_contains(message, {path_ + ":"});
    expect_contains(message, bad.message);
  }
  for (const std::string& value : {raw(uint32_t(0)), raw(uint32_t(3)), raw(uint32_t(1) << 21)})
    expect_contains(error_with(head(0, 1) + text("general.alignment") + u32 + value),
                    {"general.alignment", "expected a power of 2"});
  expect_contains(error_with(head(0, 1) + text("general.alignment") + raw(uint32_t(7)) + "\1"),
                  {"as u32"});
}

TEST_F(Gguf, UnusualButGood) {
  EXPECT_EQ(error_with(head(0, 0)), "no error");
  EXPECT_EQ(error_with(padded(head(1, 0) + tensor("w", {2}, 0, 0), 8)), "no error");  // no padding
  EXPECT_EQ(error_with(padded(head(1, 0) + tensor("w", {256, 3}, 12, 0), 432)), "no error");
  EXPECT_EQ(error_with(padded(head(1, 0) + tensor("w", {0, 5}, 0, 0), 0)), "no error");
  EXPECT_EQ(error_with(padded(head(1, 0) + tensor("w", {}, 0, 0), 4)), "no error");  // a scalar
  EXPECT_EQ(to_string(GgufReader(path_).tensors()[0]), "f32 []");
}

// Every file with one byte changed or cut off is read or refused, and nothing else.
TEST_F(Gguf, EveryChangedByteIsReadOrRefused) {
  write();
  const std::string good = test::file_bytes(path_);
  int refused = 0;
  for (size_t i = 0; i < good.size(); ++i)
    for (const int flip : {1, 16, 128}) {
      std::string bad = good;
      bad[i] = char(bad[i] ^ flip);
      test::put_bytes(path_, bad);
      try {
        GgufReader r(path_);
      } catch (const Error&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 300);
  const GgufTensor last = [&] {
    test::put_bytes(path_, good);
    return GgufReader(path_).tensors().back();
  }();
  for (size_t n = 0; n < size_t(last.begin + last.bytes()); n += 7) {
    test::put_bytes(path_, good.substr(0, n));
    EXPECT_THROW(GgufReader r(path_), Error) << n;
  }
}

}  // namespace
}  // namespace sluice
