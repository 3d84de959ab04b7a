// tests/data/text_test.cpp -- documents from files of every kind, what is held out, and the n-gram
// by hand.
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <thread>

#include "data/text/documents.h"
#include "data/text/ngram.h"
#include "tests/data/text_files.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;
using Texts = std::vector<std::string>;

Texts read_all(const Texts& paths, const TextOptions& options = {}) {
  return read_documents(find_inputs(paths, TextFormat::text), options).kept;
}

class TextTest : public ::testing::Test {
 protected:
  Texts read(const std::string& name, const std::string& bytes, const TextOptions& options = {}) {
    put_bytes(folder_ / name, bytes);
    return read_all({folder_ / name}, options);
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

// Also as two streams, one after the other, as `cat a.gz b.gz` makes them; and with a text whose
// compressed form is longer than one read.
TEST_F(TextTest, CompressedIsTheSame) {
  const std::string text = nasty_text(1, 600000, 0);
  const struct {
    const char* name;
    std::string (*pack)(const std::string&);
  } kinds[] = {{"a.txt.gz", gzip}, {"a.txt.xz", xz}, {"a.txt.zst", zstd}};
  for (const auto& k : kinds) {
    EXPECT_EQ(read(k.name, k.pack(text)), Texts{text}) << k.name;
    EXPECT_EQ(read(k.name, k.pack("abc") + k.pack(text)), Texts{"abc" + text}) << k.name;
    EXPECT_EQ(read(k.name, k.pack(text) + k.pack("")), Texts{text}) << k.name;
  }
  EXPECT_EQ(read("a.jsonl.zst", zstd("{\"text\": \"a\"}\n{\"text\": \"b\"}")), (Texts{"a", "b"}));
}

TEST_F(TextTest, FoldersPatternsAndSeveralPaths) {
  fs::create_directories(folder_ / "d/sub");
  put_bytes(folder_ / "d/b.txt", "b");
  put_bytes(folder_ / "d/a.jsonl", "{\"text\": \"a\"}");
  put_bytes(folder_ / "d/sub/c.txt.gz", gzip("c"));
  put_bytes(folder_ / "d/read.me", "not a text by its name");
  put_bytes(folder_ / "x1.txt", "1");
  put_bytes(folder_ / "x2.txt", "2");
  put_bytes(folder_ / "x[1].txt", "3");
  EXPECT_EQ(read_all({folder_ / "d"}), (Texts{"a", "b", "c"}));
  EXPECT_EQ(read_all({folder_ / "x?.txt", folder_ / "d"}), (Texts{"1", "2", "a", "b", "c"}));
  EXPECT_EQ(read_all({folder_ / "x2.txt", folder_ / "x1.txt"}), (Texts{"2", "1"}));
  EXPECT_EQ(read_all({folder_ / "x[1].txt"}), (Texts{"3"})) << "a file of that name";
  EXPECT_EQ(read_all({folder_ / "*/sub"}), (Texts{"c"}));
  EXPECT_EQ(read_all({folder_ / "d/read.me"}), (Texts{"not a text by its name"}));
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
  expect_contains(refusal("a.jsonl", "\n\n"), {"no document in it"});
  for (const char* name : {"a.jsonl", "a.txt"})
    expect_contains(refusal(name, ""), {"found an empty file"});
  // The second block's lines go on counting.
  std::string lines;
  while (lines.size() < BlockReader::kBlockBytes + 100) lines += "{\"text\": \"water\"}\n";
  const auto number = std::count(lines.begin(), lines.end(), '\n') + 1;
  expect_contains(refusal("a.jsonl", lines + "oh"), {cat("a.jsonl:", number, ": expected a JSON")});
}

TEST_F(TextTest, InputsThatAreNotThere) {
  const auto refused = [&](const Texts& paths) {
    return error_of([&] { find_inputs(paths, TextFormat::text); });
  };
  expect_contains(refused({folder_ / "b.txt"}), {"b.txt", "No such file"});
  expect_contains(refused({folder_ / ""}), {folder_ / "", "found none"});
  expect_contains(refused({folder_ / "*.txt"}), {"*.txt: this pattern matches no file"});
  put_bytes(folder_ / "a.txt", "a");
  expect_contains(refused({folder_ / "a.txt", folder_ / "a*"}), {"a.txt", "named twice"});
  fs::create_hard_link(folder_ / "a.txt", folder_ / "link.txt");
  expect_contains(refused({folder_ / "a.txt", folder_ / "link.txt"}), {"link.txt", "named twice"});
  fs::create_symlink("loop.txt", folder_ / "loop.txt");
  expect_contains(refused({folder_ / "loop.txt"}), {"loop.txt: Too many levels"});
  expect_contains(refused({"/proc/self/mem"}), {"/proc/self/mem: byte 0: "});
  fs::permissions(folder_ / "a.txt", fs::perms::none);
  if (geteuid() != 0) expect_contains(refused({folder_ / "a.txt"}), {"a.txt: Permission denied"});
}

// A pipe by a name, and one that has none (as the shell's process substitution makes it).
TEST_F(TextTest, PipesAreOpenedOnce) {
  const std::string path = folder_ / "pipe.txt";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] { put_bytes(path, "of a pipe"); });
  EXPECT_EQ(read_all({path}), Texts{"of a pipe"});
  writer.join();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "no name", 7), 7);
  close(ends[1]);
  EXPECT_EQ(read_all({cat("/dev/fd/", ends[0])}), Texts{"no name"});
  close(ends[0]);
}

// Cut anywhere, and with any bit flipped: an error or the same text, never another.
TEST_F(TextTest, DamagedCompression) {
  const std::string text = nasty_text(2, 2000, 0);
  const struct {
    const char* name;
    std::string (*pack)(const std::string&);
    const char* damaged;
  } kinds[] = {{"a.txt.gz", gzip, "broken gzip data"},
               {"a.txt.xz", xz, "broken xz data"},
               {"a.txt.zst", zstd, "broken zstd data"}};
  for (const auto& k : kinds) {
    const std::string good = k.pack(text);
    const auto outcome = [&](const std::string& bytes) {
      put_bytes(folder_ / k.name, bytes);
      try {
        return read_all({folder_ / k.name}) == Texts{text} ? std::string() : "another text";
      } catch (const Error& e) {
        return std::string(e.what());
      }
    };
    ASSERT_EQ(outcome(good), "");
    for (size_t keep = 1; keep < good.size(); keep += 31)
      expect_contains(outcome(good.substr(0, keep)), {k.name, "(cut off?)"});
    int found = 0, harmless = 0;
    for (size_t at = 0; at < good.size(); at += 3) {
      std::string bad = good;
      bad[at] ^= char(1 << at / 3 % 8);
      const std::string said = outcome(bad);
      (said.empty() ? harmless : found)++;
      if (!said.empty()) expect_contains(said, {cat(k.name, ": byte ")});
    }
    std::cout << "  " << k.name << ": " << found << " flips found, " << harmless << " harmless; "
              << outcome("These are not the bytes of such a file.") << "\n";
    expect_contains(outcome("These are not the bytes of such a file."), {k.damaged});
    EXPECT_GT(found, 20 * harmless);
  }
}

// The definition, without blocks.
Texts split_at_blank_lines(const std::string& text) {
  Texts documents;
  std::string current;
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = text.find('\n', begin);
    const size_t end = newline == std::string::npos ? text.size() : newline + 1;
    const std::string line = text.substr(begin, end - begin);
    if (line != "\n" && line != "\r\n") {
      current += line;
    } else if (!current.empty()) {
      documents.push_back(std::move(current));
      current.clear();
    }
    begin = end;
  }
  if (!current.empty()) documents.push_back(std::move(current));
  return documents;
}

// Of many blocks, some documents shorter and some longer than one.
TEST_F(TextTest, BlocksAreTheWholeText) {
  for (const uint64_t empty_lines : {0, 1, 50}) {
    std::string text = nasty_text(3 + empty_lines, 4 << 20, empty_lines);
    text += "\n\n" + nasty_text(4, 3 << 20, 0) + "\n\nend";
    EXPECT_TRUE(read("a.txt", text) == Texts{text});
    EXPECT_TRUE(read("a.txt", text, {.split = TextSplit::blank_lines}) ==
                split_at_blank_lines(text));
  }
}

// Reading that starts at the end of any block gives the blocks that are left, to the bit.
TEST_F(TextTest, GoesOnFromAnyBlock) {
  put_bytes(folder_ / "a.txt", nasty_text(5, 5 << 20, 1));
  put_bytes(folder_ / "b.jsonl.zst", zstd("{\"text\": \"a\"}\n"));
  put_bytes(folder_ / "c.txt.xz", xz(nasty_text(6, 3 << 20, 0)));
  const auto inputs = find_inputs({folder_ / ""}, TextFormat::text);
  const TextOptions options{.split = TextSplit::blank_lines};
  for (const auto by : {HoldOut::By::nothing, HoldOut::By::hash}) {
    const HoldOut hold_out{.by = by, .fraction = 0.5, .seed = 7};
    std::vector<Block> blocks;
    BlockReader reader(inputs, options, hold_out);
    for (Block b; reader.next(b);) blocks.push_back(b);
    ASSERT_GE(blocks.size(), 9u);
    for (size_t from = 0; from < blocks.size(); ++from) {
      BlockReader rest(inputs, options, hold_out, blocks[from].end);
      Block b;
      for (size_t i = from + 1; i < blocks.size(); ++i) {
        ASSERT_TRUE(rest.next(b));
        ASSERT_TRUE(b.text == blocks[i].text && b.mid_line == blocks[i].mid_line);
        ASSERT_TRUE(b.held_out == blocks[i].held_out && b.end.crc == blocks[i].end.crc);
        ASSERT_EQ(b.file_bytes, blocks[i].file_bytes);
      }
      EXPECT_FALSE(rest.next(b));
    }
    Place wrong = blocks[1].end;
    wrong.crc ^= 1;
    expect_contains(error_of([&] { BlockReader(inputs, options, hold_out, wrong); }),
                    {"a.txt: its first", "others than before"});
  }
}

TEST_F(TextTest, NowhereToCut) {
  put_bytes(folder_ / "a.txt", "A word, ");
  fs::resize_file(folder_ / "a.txt", BlockReader::kLargestPiece + 100);  // zeros
  expect_contains(error_of([&] { read_all({folder_ / "a.txt"}); }),
                  {"a.txt: byte 7: found", "expected text"});
}

// Every document is on one side, the same wherever it is; and about as many as asked for.
TEST_F(TextTest, HeldOutByHash) {
  std::string lines, backwards;
  for (int i = 0; i < 20000; ++i) {
    const std::string line = cat("{\"text\": \"document ", i % 15000, "\"}\n");
    lines += line;
    backwards.insert(0, line);
  }
  const auto split = [&](const std::string& bytes, const HoldOut& hold_out) {
    put_bytes(folder_ / "a.jsonl", bytes);
    Documents d =
        read_documents(find_inputs({folder_ / "a.jsonl"}, TextFormat::text), {}, hold_out);
    EXPECT_EQ(d.kept.size() + d.held_out.size(), 20000u);
    std::sort(d.kept.begin(), d.kept.end());
    std::sort(d.held_out.begin(), d.held_out.end());
    return d;
  };
  const HoldOut hold_out{.by = HoldOut::By::hash, .fraction = 0.1, .seed = 1};
  const Documents d = split(lines, hold_out);
  EXPECT_NEAR(double(d.held_out.size()), 2000, 200);  // 5 standard deviations, some counted twice
  EXPECT_EQ(split(backwards, hold_out).held_out, d.held_out);
  Texts both;
  std::set_intersection(d.kept.begin(), d.kept.end(), d.held_out.begin(), d.held_out.end(),
                        std::back_inserter(both));
  EXPECT_EQ(both, Texts{});
  EXPECT_NE(split(lines, {.by = HoldOut::By::hash, .fraction = 0.1, .seed = 2}).held_out,
            d.held_out);
  const Documents more = split(lines, {.by = HoldOut::By::hash, .fraction = 0.2, .seed = 1});
  EXPECT_TRUE(std::includes(more.held_out.begin(), more.held_out.end(), d.held_out.begin(),
                            d.held_out.end()));
  EXPECT_TRUE(split(lines, {.by = HoldOut::By::hash, .fraction = 0, .seed = 1}).held_out.empty());
}

// A document longer than a block goes where its first 64 KiB say, whatever is before it and
// whether it is a file of its own or a line of JSON.
TEST_F(TextTest, LongDocumentsAreHeldOutWhole) {
  int held_out = 0;
  for (int i = 0; i < 8; ++i) {
    std::string text = cat(i);
    while (text.size() < 2500000) text += " water";
    put_bytes(folder_ / "a.txt", text);
    put_bytes(folder_ / "b.txt", "short\n\n" + text + "\n\nshort");
    put_bytes(folder_ / "c.jsonl", "{\"text\": \"" + text + "\"}");
    const HoldOut hold_out{.by = HoldOut::By::hash, .fraction = 0.5, .seed = 3};
    std::vector<bool> sides;
    for (const char* name : {"a.txt", "b.txt", "c.jsonl"}) {
      const auto inputs = find_inputs({folder_ / name}, TextFormat::text);
      const Documents d = read_documents(inputs, {.split = TextSplit::blank_lines}, hold_out);
      sides.push_back(std::any_of(d.held_out.begin(), d.held_out.end(), [&](const std::string& s) {
        return s == text || s == text + "\n";
      }));
    }
    EXPECT_EQ(sides, std::vector<bool>(3, sides[0])) << i;
    held_out += sides[0];
  }
  EXPECT_GT(held_out, 0);
  EXPECT_LT(held_out, 8);
}

TEST_F(TextTest, HeldOutTail) {
  const std::string text =
      "abcd\n\n\nwater \xe6\xb0\xb4\xe9\x97\xb8 \xf0\x9f\x8c\x8a!\nline\n\n"
      "\x80\x80\x80\x80\x80\x80\n\nxyz";
  put_bytes(folder_ / "a.txt", text);
  put_bytes(folder_ / "b.txt", "another\n");
  const auto inputs = find_inputs({folder_ / ""}, TextFormat::text);
  const TextOptions options{.split = TextSplit::blank_lines};
  std::string all;
  for (const auto& d : read_documents(inputs, options).kept) all += d;
  size_t last = 0;
  for (int percent = 0; percent < 100; ++percent) {
    const Documents h =
        read_documents(inputs, options, {.by = HoldOut::By::tail, .fraction = percent / 100.0});
    std::string train, valid;
    for (const auto& d : h.kept) train += d;
    for (const auto& d : h.held_out) valid += d;
    EXPECT_EQ(train + valid, all);
    const double asked = percent / 100.0 * double(all.size());
    EXPECT_GE(double(valid.size()), asked - 0.5);
    EXPECT_LE(double(valid.size()), asked + 3.5) << "more by part of a character at most";
    EXPECT_GE(valid.size(), last);
    last = valid.size();
    // Up to the run of bytes that are no UTF-8, no character is cut.
    if (train.size() < 29) {
      EXPECT_NE(valid[0] & 0xC0, 0x80) << percent;
    }
  }
  put_bytes(folder_ / "c.txt", "abcdefgh\n\nij");  // the document that is met is cut, at any byte
  const auto one = find_inputs({folder_ / "c.txt"}, TextFormat::text);
  const auto cut = [&](double fraction) {
    return read_documents(one, options, {.by = HoldOut::By::tail, .fraction = fraction});
  };
  EXPECT_EQ(cut(5 / 11.0).kept, Texts{"abcdef"});
  EXPECT_EQ(cut(5 / 11.0).held_out, (Texts{"gh\n", "ij"}));
  EXPECT_EQ(cut(3 / 11.0).held_out, (Texts{"\n", "ij"}));  // in the document, not an empty line
  EXPECT_EQ(cut(2 / 11.0).held_out, Texts{"ij"});
  put_bytes(folder_ / "d.jsonl", "{}");
  for (const double f : {-0.1, 1.0, std::nan("")})
    expect_contains(error_of([&] { find_tail(inputs, {}, f); }), {"held-out fraction is"});
  expect_contains(
      error_of([&] { find_tail(find_inputs({folder_ / "d.jsonl"}, TextFormat::text), {}, 0.1); }),
      {"d.jsonl", "text files only"});
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
