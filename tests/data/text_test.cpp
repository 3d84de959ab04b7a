// tests/data/text_test.cpp -- documents from files, the held-out tail, and the n-gram by hand.
#include <cmath>

#include "data/text/documents.h"
#include "data/text/ngram.h"
#include "tests/support/folder.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Texts = std::vector<std::string>;

class TextTest : public ::testing::Test {
 protected:
  Texts read(const std::string& name, const std::string& bytes, const TextOptions& options = {}) {
    put_bytes(folder_ / name, bytes);
    return read_documents(folder_ / name, options);
  }
  std::string refusal(const std::string& name, const std::string& bytes) {
    const std::string message = error_of([&] { read(name, bytes); });
    expect_contains(message, {folder_ / name});
    return message;
  }
  const Folder folder_;
};

TEST_F(TextTest, AFileIsADocumentByteByByte) {
  for (const std::string& bytes : Texts{"a", "a\n\nb\r\n", std::string("\0\xff", 2), "\n"})
    EXPECT_EQ(read("a.txt", bytes), Texts{bytes});
}

TEST_F(TextTest, BlankLinesSeparate) {
  const struct {
    const char* text;
    Texts want;
  } cases[] = {
      {"a\nb\n\nc\n", {"a\nb\n", "c\n"}},     {"a\n\nb", {"a\n", "b"}},  // no newline at the end
      {"\n\na\n\n\n\nb\n\n", {"a\n", "b\n"}}, {"a\r\n\r\nb\r\n", {"a\r\n", "b\r\n"}},
      {"a\n \nb\n", {"a\n \nb\n"}},  // a blank is a character
      {"a\n\r\nb\n\r", {"a\n", "b\n\r"}}};
  for (const auto& c : cases)
    EXPECT_EQ(read("a.txt", c.text, {.split = TextSplit::blank_lines}), c.want) << c.text;
}

TEST_F(TextTest, JsonLines) {
  EXPECT_EQ(
      read("a.jsonl",
           "{\"text\": \"a\\nb\"}\r\n\n  \n{\"id\": 1, \"text\": \"\"}\n{\"text\":\"\\u6c34\"}"),
      (Texts{"a\nb", "", "\xe6\xb0\xb4"}));
  EXPECT_EQ(read("a.json", "{\"body\": \"x\"}", {.field = "body"}), Texts{"x"});
}

TEST_F(TextTest, MistakesNameFileAndLine) {
  const std::string good = "{\"text\": \"a\"}\n\n";
  expect_contains(refusal("a.jsonl", good + "{\"txt\": \"a\"}\n"),
                  {"a.jsonl:3: expected an object with \"text\", got {\"txt\": \"a\"}"});
  expect_contains(refusal("a.jsonl", good + "{\"text\": [1]}\n"),
                  {"a.jsonl:3: text: expected a string, got [1]"});
  expect_contains(refusal("a.jsonl", "{\"text\": null}"),
                  {"a.jsonl:1: text: expected a string, got null"});
  expect_contains(refusal("a.jsonl", good + "{\"text\": \"a\n"),
                  {"a.jsonl:3: expected a JSON object, got \"{\"text\": \"a\""});
  expect_contains(refusal("a.jsonl", "[1]\n"),
                  {"a.jsonl:1: expected an object with \"text\", got [1]"});
  expect_contains(refusal("a.jsonl", "{\"text\": \"\xff\"}\n"),
                  {"a.jsonl:1: expected a JSON object"});
  for (const char* nothing : {"", "\n\n"})
    expect_contains(refusal("a.jsonl", nothing), {"no text in it"});
  expect_contains(refusal("a.txt", ""), {"no text in it"});
  expect_contains(error_of([&] { read_documents(folder_ / "b.txt", {}); }),
                  {"b.txt", "No such file"});
  expect_contains(error_of([&] { read_documents(folder_ / "", {}); }), {"Is a directory"});
}

TEST(HoldOutTail, BytesAddUpAndCharactersStayWhole) {
  const Texts documents = {"abcd", "", "water \xe6\xb0\xb4\xe9\x97\xb8 \xf0\x9f\x8c\x8a!",
                           "\x80\x80\x80\x80\x80\x80", "xyz"};
  std::string all;
  for (const auto& d : documents) all += d;
  size_t last = 0;
  for (int percent = 0; percent < 100; ++percent) {
    const HeldOut h = hold_out_tail(documents, percent / 100.0);
    std::string train, valid;
    for (const auto& d : h.train) train += d;
    for (const auto& d : h.valid) valid += d;
    EXPECT_EQ(train + valid, all);
    const double asked = percent / 100.0 * double(all.size());
    EXPECT_GE(double(valid.size()), asked - 0.5);
    EXPECT_LE(double(valid.size()), asked + 3.5) << "more by part of a character at most";
    EXPECT_GE(valid.size(), last);
    last = valid.size();
    // Up to the run of bytes that are no UTF-8, no character is cut.
    if (train.size() < 22) {
      EXPECT_NE(valid[0] & 0xC0, 0x80) << percent;
    }
  }
  EXPECT_EQ(hold_out_tail(documents, 0).train, documents);
  EXPECT_TRUE(hold_out_tail({}, 0.5).valid.empty());
  const HeldOut two = hold_out_tail({"abcd", "efgh"}, 0.25);  // the document that is met is cut
  EXPECT_EQ(two.train, (Texts{"abcd", "ef"}));
  EXPECT_EQ(two.valid, Texts{"gh"});
  for (const double f : {-0.1, 1.0, std::nan("")})
    expect_contains(error_of([&] { hold_out_tail({"a"}, f); }), {"held-out fraction is"});
}

// "abab" counted; "ab" and "ac" scored by hand.
TEST(Ngram, ClosedForm) {
  const double u = 1.0 / 256;
  // Order 0: a twice, b twice of 4; two kinds.
  const double a = (2 + 2 * u) / 6, b = (2 + 2 * u) / 6, c = (0 + 2 * u) / 6;
  EXPECT_NEAR(ngram_bits_per_byte({"abab"}, {"a"}, 1), -std::log2(a), 1e-12);
  EXPECT_NEAR(ngram_bits_per_byte({"abab"}, {"ab"}, 1), -(std::log2(a) + std::log2(b)) / 2, 1e-12);
  // After a: b twice, one kind. After b: a once, one kind.
  const double b_a = (2 + 1 * b) / 3, c_a = (0 + 1 * c) / 3, a_b = (1 + 1 * a) / 2;
  EXPECT_NEAR(ngram_bits_per_byte({"abab"}, {"ab"}, 2), -(std::log2(a) + std::log2(b_a)) / 2,
              1e-12);
  EXPECT_NEAR(ngram_bits_per_byte({"abab"}, {"ac"}, 2), -(std::log2(a) + std::log2(c_a)) / 2,
              1e-12);
  // After ab: a once, one kind; after ba: b.
  const double a_ab = (1 + 1 * a_b) / 2;
  EXPECT_NEAR(ngram_bits_per_byte({"abab"}, {"aba"}, 3),
              -(std::log2(a) + std::log2(b_a) + std::log2(a_ab)) / 3, 1e-12);
  // Context does not cross documents: the second starts anew.
  EXPECT_NEAR(ngram_bits_per_byte({"ab", "ab"}, {"a", "b"}, 2), -(std::log2(a) + std::log2(b)) / 2,
              1e-12);
  EXPECT_NEAR(ngram_bits_per_byte({}, {"xyz"}, 3), 8, 1e-12) << "nothing counted: uniform";
}

// The probabilities after any context add up to 1.
TEST(Ngram, IsADistribution) {
  const std::string prefix = "the water";
  double sum = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = prefix + char(byte);
    const double with =
        ngram_bits_per_byte({"the gate, the water, the way"}, {text}, 4) * double(text.size());
    const double without =
        ngram_bits_per_byte({"the gate, the water, the way"}, {prefix}, 4) * double(prefix.size());
    sum += std::exp2(without - with);
  }
  EXPECT_NEAR(sum, 1, 1e-9);
  for (const int order : {0, 6})
    expect_contains(error_of([&] { ngram_bits_per_byte({"a"}, {"a"}, order); }),
                    {cat("order is ", order)});
  expect_contains(error_of([] { ngram_bits_per_byte({"a"}, {""}, 2); }), {"no text to score"});
}

}  // namespace
}  // namespace sluice::test
