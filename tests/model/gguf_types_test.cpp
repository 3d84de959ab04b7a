// tests/model/gguf_types_test.cpp -- numbers as GGUF's element types.
#include "model/export/gguf_types.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/message.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_contains;

TEST(GgufTypes, EveryHalfIsItself) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float x = from_f16(uint16_t(h));
    if (std::isnan(x)) continue;
    EXPECT_EQ(to_f16(x), h) << x;
    const uint32_t magnitude = h & 0x7fff;  // by the definition
    const double expected = magnitude < 0x400
                                ? std::ldexp(magnitude, -24)
                                : std::ldexp(1024 + (magnitude & 0x3ff), int(magnitude >> 10) - 25);
    if (magnitude == 0x7c00) continue;  // infinity
    EXPECT_EQ(double(std::abs(x)), expected);
  }
}

// Between neighbours: the nearer one; half way the even one.
TEST(GgufTypes, HalvesAreNearest) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const double a = from_f16(uint16_t(h)), b = from_f16(uint16_t(h + 1));
    const float middle = float((a + b) / 2);  // exact
    EXPECT_EQ(to_f16(middle), h % 2 == 0 ? h : h + 1);
    EXPECT_EQ(to_f16(std::nextafterf(middle, 0)), h);
    EXPECT_EQ(to_f16(std::nextafterf(middle, INFINITY)), h + 1);
    EXPECT_EQ(to_f16(-middle), (h % 2 == 0 ? h : h + 1) | 0x8000);
  }
  EXPECT_EQ(to_f16(65519.99f), 0x7bff);
  EXPECT_EQ(to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(to_f16(1e30f), 0x7c00);
}

TEST(GgufTypes, BlocksOfEightBits) {
  std::vector<float> x(64), back(64);
  for (size_t i = 0; i < 32; ++i) x[i] = float(i) - 10;  // largest 21
  x[3] = -127.0f / 2;
  std::vector<char> bytes(68);
  encode(GgufType::q8_0, x.data(), 64, bytes.data());
  EXPECT_EQ(to_f16(0.5f), 0x3800);
  EXPECT_EQ(bytes[0], 0x00);
  EXPECT_EQ(bytes[1], 0x38);
  EXPECT_EQ(int8_t(bytes[2 + 3]), -127);
  EXPECT_EQ(int8_t(bytes[2 + 31]), 42);
  for (size_t i = 34; i < 68; ++i) EXPECT_EQ(bytes[i], 0);  // a block of zeros
  decode(GgufType::q8_0, bytes.data(), 64, back.data());
  EXPECT_EQ(back, x);  // multiples of the scale
  x.assign(64, 0);
  x[0] = 127, x[1] = 2.5f, x[2] = -2.5f;  // half way: away from zero
  encode(GgufType::q8_0, x.data(), 32, bytes.data());
  EXPECT_EQ(bytes[3], 3);
  EXPECT_EQ(bytes[4], -3);
}

TEST(GgufTypes, WhatHasNoPlaceIsRefused) {
  char to[128];
  const std::vector<float> large(32, 1e5f), nan(32, NAN), huge(32, 3.4e38f), small(32, 1e-41f);
  expect_contains(error_of([&] { encode(GgufType::f16, large.data(), 1, to); }),
                  {"100000 has no place in f16"});
  expect_contains(error_of([&] { encode(GgufType::f32, nan.data(), 1, to); }), {"nan"});
  expect_contains(error_of([&] { encode(GgufType::bf16, huge.data(), 1, to); }), {"bf16"});
  expect_contains(error_of([&] { encode(GgufType::q8_0, huge.data(), 32, to); }), {"q8_0"});
  expect_contains(error_of([&] { encode(GgufType::q8_0, large.data(), 31, to); }),
                  {"blocks of 32"});
  encode(GgufType::q8_0, small.data(), 32, to);  // the scale rounds to 0
  EXPECT_EQ(to[2], 0);
}

}  // namespace
}  // namespace sluice
