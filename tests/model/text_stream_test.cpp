// tests/model/text_stream_test.cpp -- stop strings across tokens, whole characters, nothing twice.
#include "model/generate/text_stream.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"

namespace sluice {
namespace {

struct Shown {
  std::string all;
  std::vector<std::string> parts;
  bool stopped;
};

Shown run(const std::vector<std::string>& pieces, const std::vector<std::string>& stop) {
  TextStream stream(stop);
  Shown s;
  for (const std::string& p : pieces) s.parts.push_back(stream.push(p));
  if (!stream.stopped()) s.parts.push_back(stream.finish());
  for (const std::string& p : s.parts) s.all += p;
  s.stopped = stream.stopped();
  return s;
}

TEST(TextStream, HandsOutAtOnceWhatCannotStop) {
  const Shown s = run({"ab", "c\nd", "e"}, {"\n\n"});
  EXPECT_EQ(s.parts, (std::vector<std::string>{"ab", "c\nd", "e", ""}));
}

TEST(TextStream, AStopStringMaySpanPieces) {
  const Shown s = run({"abc E", "N", "D more"}, {"END"});
  EXPECT_TRUE(s.stopped);
  EXPECT_EQ(s.parts, (std::vector<std::string>{"abc ", "", ""}));
}

TEST(TextStream, WhatWasHeldBackIsShownWhenItDoesNotStop) {
  const Shown s = run({"E", "N", "N", "END"}, {"ENDE"});
  EXPECT_FALSE(s.stopped);
  EXPECT_EQ(s.parts, (std::vector<std::string>{"", "", "ENN", "", "END"}));
}

TEST(TextStream, TheEarliestOfSeveralWins) {
  EXPECT_EQ(run({"one two three"}, {"three", "two"}).all, "one ");
  EXPECT_EQ(run({"aab", "aac"}, {"aac"}).all, "aab");  // a beginning inside a beginning
  EXPECT_EQ(run({"xaaa", "ab"}, {"aaab"}).all, "xa");  // overlaps itself
  EXPECT_EQ(run({"ab"}, {"abc", "b"}).all, "a");       // a longer one has begun
}

// Every cut of a text into pieces shows the same.
TEST(TextStream, PiecesDoNotMatter) {
  const std::string text = "na\xC3\xAFve \xE2\x82\xAC \xF0\x9F\x98\x80 STO STOP after";
  for (size_t a = 0; a <= text.size(); ++a)
    for (size_t b = a; b <= text.size(); ++b) {
      const Shown s = run({text.substr(0, a), text.substr(a, b - a), text.substr(b)}, {"STOP"});
      ASSERT_EQ(s.all, text.substr(0, text.find("STOP"))) << a << " " << b;
      ASSERT_TRUE(s.stopped);
    }
}

TEST(TextStream, CharactersAreWhole) {
  const Shown s = run({"a\xE2", "\x82",
                       "\xAC"
                       "b\xC3"},
                      {});
  EXPECT_EQ(s.parts, (std::vector<std::string>{"a", "",
                                               "\xE2\x82\xAC"
                                               "b",
                                               "\xEF\xBF\xBD"}));
  // Bytes that are no UTF-8 go through; they complete nothing.
  EXPECT_EQ(run({"\x80\xFF", "\xC0"}, {}).all, "\x80\xFF\xC0");
  EXPECT_EQ(run({"\xF0\x9F\x98"}, {}).all, "\xEF\xBF\xBD");
}

TEST(TextStream, EmptyStopStringsAreRefused) {
  EXPECT_THROW(TextStream({""}), Error);
}

}  // namespace
}  // namespace sluice
