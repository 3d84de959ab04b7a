// tests/data/encode_test.cpp -- text to shards: the same bytes whatever the threads, the blocks and
// the interruptions; and other people's token files.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/encode/count_words.h"
#include "data/encode/cut_check.h"
#include "data/encode/encode.h"
#include "data/encode/megatron.h"
#include "data/encode/pipeline.h"
#include "data/text/documents.h"
#include "tests/data/text_files.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

Tokenizer make_tokenizer(const std::string& pattern, int64_t merges = 200) {
  return Tokenizer(train_bpe({nasty_text(1, 4000, 0)}, pattern, merges), pattern);
}

// Every place where a text may be cut, for every pattern that has a name.
TEST(SafeCut, TokensOfBothPartsAreTheWholes) {
  for (const char* pattern : kCuttablePatterns) {
    const Tokenizer tokenizer = make_tokenizer(pattern);
    int64_t cuts = 0;
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const std::string text = nasty_text(100 + seed, 150, 30);
      const std::vector<int32_t> whole = tokenizer.encode(text);
      size_t last = 0;
      for (size_t n = 1; n <= text.size(); ++n) {
        const size_t at = last_safe_cut(std::string_view(text).substr(0, n));
        if (at == last) continue;
        last = at;
        ++cuts;
        std::vector<int32_t> parts = tokenizer.encode(std::string_view(text).substr(0, at));
        const std::vector<int32_t> second = tokenizer.encode(std::string_view(text).substr(at));
        parts.insert(parts.end(), second.begin(), second.end());
        ASSERT_EQ(parts, whole) << pattern << ", cut at " << at << " of: " << text;
      }
    }
    std::cout << "  " << pattern << ": " << cuts << " cuts\n";
    EXPECT_GT(cuts, 500);
  }
}

TEST(Pipeline, OrderAndErrors) {
  for (const int workers : {1, 2, 7}) {
    const auto run = [&](int bad_read, int bad_work, int enough) {
      int n = 0;
      std::vector<int> taken;
      const std::string error = error_of([&] {
        ordered_pipeline<int, int>(
            workers,
            [&](int& in) {
              in = n++;
              if (in == bad_read) throw Error(cat("read ", in));
              return in < 100;
            },
            [&] {
              return [&](int in) {
                if (in >= bad_work) throw Error(cat("work ", in));
                return in * in;
              };
            },
            [&](int out) {
              taken.push_back(out);
              return out != enough;
            });
      });
      for (size_t i = 0; i < taken.size(); ++i) EXPECT_EQ(taken[i], int(i * i));
      return std::pair(error, taken.size());
    };
    EXPECT_EQ(run(-1, 1000, -1), std::pair(std::string("no error"), size_t(100)));
    EXPECT_EQ(run(50, 1000, -1), std::pair(std::string("read 50"), size_t(50)));
    EXPECT_EQ(run(50, 20, -1), std::pair(std::string("work 20"), size_t(20))) << "the first one";
    EXPECT_EQ(run(-1, 1000, 81), std::pair(std::string("no error"), size_t(10)));
  }
}

class EncodeTest : public ::testing::Test {
 protected:
  EncodeTest() {
    fs::create_directories(folder_ / "in");
    put_bytes(folder_ / "in/a.txt", nasty_text(11, 1300000, 1));
    std::string lines;
    for (uint64_t i = 0; i < 3000; ++i)
      lines += cat("{\"id\": ", i, ", \"text\": \"Water, line ", i % 2500, "\\nand more.\"}\n");
    put_bytes(folder_ / "in/b.jsonl.zst", zstd(lines));
    put_bytes(folder_ / "in/c.txt.xz", xz(nasty_text(12, 1200000, 40)));
  }
  EncodeJob job(const std::string& name, int threads = 2) const {
    return {.inputs = find_inputs({folder_ / "in"}, TextFormat::text),
            .text = {.split = TextSplit::blank_lines},
            .hold_out = {.by = HoldOut::By::hash, .fraction = 0.2, .seed = 5},
            .out = folder_ / (name + ".h5"),
            .held_out_out = folder_ / (name + "-valid.h5"),
            .threads = threads,
            .commit_seconds = 0};
  }
  std::string result(const std::string& name) const {
    return file_bytes(folder_ / (name + ".h5")) + file_bytes(folder_ / (name + "-valid.h5"));
  }
  // Stops after so many blocks.
  bool run(const EncodeJob& j, int blocks) const {
    int n = 0;
    return encode(j, tokenizer_, {}, [&] { return ++n >= blocks; }).finished;
  }
  bool partial(const std::string& name) const {
    return fs::exists(folder_ / (name + ".h5.partial"));
  }

  const Folder folder_;
  const Tokenizer tokenizer_ = make_tokenizer("gpt2");
};

// By the definition: each document encoded as a whole.
TEST_F(EncodeTest, IsTheDocumentsWhateverTheThreads) {
  EncodeJob j = job("want");
  const Documents d = read_documents(j.inputs, j.text, j.hold_out);
  ShardWriter kept(j.out, shard_info(tokenizer_)), held_out(j.held_out_out, shard_info(tokenizer_));
  for (const auto& text : d.kept) kept.add_document(tokenizer_.encode(text));
  for (const auto& text : d.held_out) held_out.add_document(tokenizer_.encode(text));
  kept.finish();
  held_out.finish();
  for (const int threads : {1, 2, 5}) {
    const std::string name = cat("got", threads);
    int64_t last = 0;
    const EncodeResult r = encode(job(name, threads), tokenizer_, [&](const EncodeProgress& p) {
      EXPECT_GE(p.file_bytes, last);
      last = p.file_bytes;
    });
    EXPECT_TRUE(r.finished);
    EXPECT_EQ(r.kept.documents, int64_t(d.kept.size()));
    EXPECT_EQ(r.held_out.documents, int64_t(d.held_out.size()));
    int64_t all = 0;
    for (const InputFile& f : j.inputs) all += f.bytes;
    EXPECT_EQ(last, all);
    EXPECT_TRUE(result(name) == result("want")) << threads;
    EXPECT_FALSE(partial(name));
  }
}

TEST_F(EncodeTest, StoppedAnywhereItGoesOnToTheSameBytes) {
  ASSERT_TRUE(encode(job("want"), tokenizer_).finished);
  int stops = 0;
  for (int blocks = 1;; ++blocks) {
    const std::string name = cat("got", blocks);
    if (run(job(name), blocks)) break;
    ++stops;
    EXPECT_FALSE(fs::exists(folder_ / (name + ".h5")));
    // What a kill leaves: bytes that no commit counts, half a shard.
    const std::string tokens = folder_ / (name + ".h5.partial/kept.tokens");
    put_bytes(tokens, file_bytes(tokens) + "more");
    put_bytes(folder_ / (name + ".h5.tmp"), "half a shard");
    const EncodeResult r = encode(job(name, 1), tokenizer_);
    EXPECT_GT(r.resumed_at, 0);
    EXPECT_TRUE(r.finished);
    EXPECT_TRUE(result(name) == result("want")) << blocks;
    EXPECT_FALSE(partial(name) || fs::exists(folder_ / (name + ".h5.tmp")));
    fs::remove(folder_ / (name + ".h5"));
  }
  EXPECT_GE(stops, 4);
}

TEST_F(EncodeTest, KilledAtAnyTimeItGoesOnToTheSameBytes) {
  ASSERT_TRUE(encode(job("want"), tokenizer_).finished);
  int kills = 0, resumes = 0;
  for (int round = 0; round < 3; ++round) {
    const std::string name = cat("got", round);
    for (int wait = 10 + 15 * round;; wait += 30) {
      const pid_t child = fork();
      if (child == 0) {
        int status = 1;
        try {
          const EncodeResult r = encode(job(name), tokenizer_);
          status = r.finished ? r.resumed_at > 0 ? 2 : 0 : 1;
        } catch (const std::exception& e) {
          std::cerr << e.what() << "\n";
        }
        _exit(status);
      }
      usleep(useconds_t(1000 * wait));
      kill(child, SIGKILL);
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      if (WIFSIGNALED(status)) {
        ++kills;
        continue;
      }
      ASSERT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2);
      resumes += WEXITSTATUS(status) == 2;
      break;
    }
    EXPECT_TRUE(result(name) == result("want")) << round;
    EXPECT_FALSE(partial(name));
  }
  std::cout << "  " << kills << " kills, " << resumes << " of 3 encodings went on\n";
  EXPECT_GT(kills, 0);
}

TEST_F(EncodeTest, AnotherCommandIsNoContinuation) {
  ASSERT_TRUE(encode(job("want"), tokenizer_).finished);
  ASSERT_FALSE(run(job("got"), 2));
  const auto refused = [&](const EncodeJob& j, const Tokenizer& tokenizer) {
    const std::string message = error_of([&] { encode(j, tokenizer); });
    EXPECT_TRUE(partial("got"));
    expect_contains(message, {"got.h5.partial", "to start over"});
    return message;
  };
  EncodeJob j = job("got");
  j.hold_out.seed = 6;
  expect_contains(refused(j, tokenizer_), {"/held_out_seed was 5, is 6"});
  j = job("got");
  j.text.split = TextSplit::whole;
  expect_contains(refused(j, tokenizer_), {"/split_at_blank_lines was true, is false"});
  expect_contains(refused(job("got"), make_tokenizer("gpt2", 100)), {"/tokenizer was"});
  j = job("got");
  j.inputs[0].modified_ns += 1;
  expect_contains(refused(j, tokenizer_), {"/inputs/0/modified_ns was"});
  j = job("got");
  j.inputs.pop_back();
  expect_contains(refused(j, tokenizer_), {"/inputs/2 was"});
  j = job("got");
  j.inputs.push_back(j.inputs.back());
  expect_contains(refused(j, tokenizer_), {"/inputs/- was not there, is {", "c.txt.xz"});
  // A change that neither size nor time nor head show, before the place that was reached.
  const std::string text = file_bytes(folder_ / "in/a.txt");
  std::string changed = text;
  changed[100000] ^= 1;  // the head is 64 KiB
  const auto time = fs::last_write_time(folder_ / "in/a.txt");
  put_bytes(folder_ / "in/a.txt", changed);
  fs::last_write_time(folder_ / "in/a.txt", time);
  expect_contains(refused(job("got"), tokenizer_), {"a.txt: its first"});
  put_bytes(folder_ / "in/a.txt", text);
  fs::last_write_time(folder_ / "in/a.txt", time);
  const std::string journal = folder_ / "got.h5.partial/journal.json", good = file_bytes(journal);
  std::string bad = good;
  bad[bad.find("\"byte\":") + 7] ^= 1;
  put_bytes(journal, bad);
  expect_contains(refused(job("got"), tokenizer_), {"journal.json: is damaged"});
  put_bytes(journal, good.substr(0, good.size() / 2));
  expect_contains(refused(job("got"), tokenizer_), {"journal.json: is damaged"});
  put_bytes(journal, good);
  EXPECT_TRUE(encode(job("got"), tokenizer_).finished);
  EXPECT_TRUE(result("got") == result("want"));
}

TEST_F(EncodeTest, OnlyOneProcessAtATime) {
  bool refused = false;
  encode(job("a"), tokenizer_, [&](const EncodeProgress&) {
    if (!refused)
      expect_contains(error_of([&] { encode(job("a"), tokenizer_); }), {"another process"});
    refused = true;
  });
  EXPECT_TRUE(refused && fs::exists(folder_ / "a.h5"));
}

TEST_F(EncodeTest, AnErrorLeavesNothing) {
  put_bytes(folder_ / "in/d.jsonl", "{\"text\": 1}\n");
  const auto expect_nothing = [&] {
    for (const char* end : {".h5", ".h5.tmp", ".h5.partial", "-valid.h5", "-valid.h5.tmp"})
      EXPECT_FALSE(fs::exists(folder_ / ("a" + std::string(end)))) << end;
  };
  expect_contains(error_of([&] { encode(job("a"), tokenizer_); }),
                  {"d.jsonl:1: text: expected a string"});
  expect_nothing();
  ASSERT_FALSE(run(job("a"), 2));  // also of one that went on
  expect_contains(error_of([&] { encode(job("a"), tokenizer_); }), {"d.jsonl:1"});
  expect_nothing();
  fs::remove(folder_ / "in/d.jsonl");
  EncodeJob j = job("a");
  j.hold_out.fraction = 1e-12;
  expect_contains(error_of([&] { encode(j, tokenizer_); }), {"0 would be held out", "both sides"});
  expect_nothing();
  put_bytes(folder_ / "e.txt", "\n\n");
  j.inputs = find_inputs({folder_ / "e.txt"}, TextFormat::text);
  expect_contains(error_of([&] { encode(j, tokenizer_); }), {"e.txt: no document in it"});
  expect_nothing();
  j = job("a");
  j.held_out_out = folder_ / "no/such/valid.h5";
  int64_t blocks = 0;
  const auto count = [&](const EncodeProgress&) { ++blocks; };
  expect_contains(error_of([&] { encode(j, tokenizer_, count); }), {"no/such/valid.h5"});
  j.held_out_out = folder_ / "in";
  expect_contains(error_of([&] { encode(j, tokenizer_, count); }), {"in: expected a file"});
  EXPECT_EQ(blocks, 0) << "noticed before anything is encoded";
  expect_nothing();
  j.out = folder_ / "no/such/a.h5";
  expect_contains(error_of([&] { encode(j, tokenizer_); }), {"no/such", "No such file"});
}

// One that was read to its end before a kill would not be compared.
TEST_F(EncodeTest, APipeIsTheLastInput) {
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EncodeJob j = job("a");
  j.inputs = find_inputs({folder_ / "pipe", folder_ / "in"}, TextFormat::text);
  expect_contains(error_of([&] { encode(j, tokenizer_); }),
                  {"pipe: expected standard input or a pipe to be the last input, found 3 after"});
  EXPECT_FALSE(partial("a"));
}

TEST_F(EncodeTest, AFileNameMayBeAnyBytes) {
  fs::rename(folder_ / "in/a.txt", folder_ / "in/a\xff.txt");
  ASSERT_FALSE(run(job("a"), 2));
  EXPECT_TRUE(encode(job("a"), tokenizer_).finished);
}

// Nobody knows where text may be cut for a regex of one's own.
TEST_F(EncodeTest, ALongDocumentNeedsAKnownPattern) {
  const Tokenizer own = make_tokenizer("[a-z ]+|[^a-z ]", 0);
  EncodeJob j = job("a");
  j.text.split = TextSplit::whole;
  expect_contains(error_of([&] { encode(j, own); }),
                  {"in/a.txt", "longer than a block", "[a-z ]+|[^a-z ]"});
  expect_contains(
      error_of([&] { count_words(j.inputs, j.text, j.hold_out, "[a-z ]+|[^a-z ]", 1); }),
      {"in/a.txt", "longer than a block", "[a-z ]+|[^a-z ]"});
  j.inputs = find_inputs({folder_ / "in/b.jsonl.zst"}, TextFormat::text);
  EXPECT_TRUE(encode(j, own).finished);
}

// A cut before its blank would make other tokens.
TEST_F(EncodeTest, ALongDocumentNeedsAddedTokensWithoutAPlaceToCut) {
  const auto added = [&](const std::string& content, bool special) {
    tokenizer_.save(folder_ / "t.json");
    auto file = nlohmann::json::parse(file_bytes(folder_ / "t.json"));
    auto token = file["added_tokens"][0];
    token["id"] = tokenizer_.vocab_size();
    token["content"] = content;
    token["special"] = special;
    file["added_tokens"].push_back(token);
    put_bytes(folder_ / "t.json", file.dump());
    return Tokenizer::load(folder_ / "t.json");
  };
  EncodeJob j = job("a");
  j.text.split = TextSplit::whole;
  for (const char* content : {"foo bar", "foo\nbar"})
    for (const bool special : {false, true})
      expect_contains(error_of([&] { encode(j, added(content, special)); }),
                      {"in/a.txt", "longer than a block", content});
  j.hold_out = {};
  j.held_out_out.clear();
  for (const char* content : {" foo", "  ", "foobar", ".\nfoo"})
    EXPECT_TRUE(encode(j, added(content, false)).finished) << content;
}

TEST_F(EncodeTest, WordsAreTheWholeTextsWords) {
  const EncodeJob j = job("a");
  const Documents d = read_documents(j.inputs, j.text, j.hold_out);
  for (const char* pattern : {"gpt2", "qwen2"}) {
    WordCounts want;
    PreTokenizer::Matcher matcher{PreTokenizer(pattern)};
    for (const auto& text : d.kept)
      matcher.split(text, [&](std::string_view w) { ++want[std::string(w)]; });
    for (const int threads : {1, 3}) {
      const CountedWords got = count_words(j.inputs, j.text, j.hold_out, pattern, threads);
      EXPECT_TRUE(got.counts == want) << pattern;
      EXPECT_EQ(got.documents, int64_t(d.kept.size()));
    }
  }
}

// Files as Megatron-LM writes them.
class MegatronTest : public ::testing::Test {
 protected:
  using Sequences = std::vector<std::vector<int64_t>>;
  template <class T>
  static void put(std::string& out, T v) {
    out.append(reinterpret_cast<const char*>(&v), sizeof v);
  }
  template <class T>
  void write(int code, const Sequences& sequences, const std::vector<int64_t>& documents) {
    std::string bin, lengths, begins, index("MMIDIDX\0\0", 9), ends;
    for (const auto& s : sequences) {
      put(lengths, int32_t(s.size()));
      put(begins, int64_t(bin.size()));
      for (const int64_t id : s) put(bin, T(id));
    }
    for (const int64_t d : documents) put(ends, d);
    put(index, uint64_t(1));
    put(index, uint8_t(code));
    put(index, uint64_t(sequences.size()));
    put(index, uint64_t(documents.size()));
    put_bytes(prefix_ + ".bin", bin);
    put_bytes(prefix_ + ".idx", index + lengths + begins + ends);
  }
  MegatronImport import() { return import_megatron(prefix_, tokenizer_, folder_ / "a.h5"); }
  std::string refused() {
    const std::string message = error_of([&] { import(); });
    EXPECT_FALSE(fs::exists(folder_ / "a.h5") || fs::exists(folder_ / "a.h5.tmp"));
    return message;
  }
  std::string changed(const std::string& end, size_t at, const std::string& bytes) {
    std::string file = file_bytes(prefix_ + end);
    file.replace(at, bytes.size(), bytes);
    put_bytes(prefix_ + end, file);
    const std::string message = refused();
    write<uint16_t>(8, sequences_, {0, 1, 3, 4});
    return message;
  }

  const Folder folder_;
  const std::string prefix_ = folder_ / "data_text_document";
  const Tokenizer tokenizer_ = make_tokenizer("gpt2", 100);  // 357 tokens, the end of text is 356
  // Three documents: with an end of text; of two sequences, one inside it; without any.
  const Sequences sequences_{{1, 2, 356}, {3, 356}, {4, 100, 356}, {5}};
};

TEST_F(MegatronTest, DocumentsAreTheIndexs) {
  const std::vector<int32_t> want{356, 1, 2, 356, 3, 356, 4, 100, 356, 5};
  const auto expect_documents = [&] {
    const MegatronImport r = import();
    const ShardReader shard(folder_ / "a.h5");
    std::vector<int32_t> got(size_t(shard.tokens()));
    shard.read(0, shard.tokens(), got.data());
    EXPECT_EQ(got, want);
    EXPECT_EQ(shard.offsets(), (std::vector<int64_t>{0, 3, 8, 10}));
    EXPECT_EQ(r.documents, 3);
    EXPECT_EQ(r.ended, 2);
    EXPECT_EQ(shard.info().tokenizer, tokenizer_.fingerprint());
  };
  write<uint16_t>(8, sequences_, {0, 1, 3, 4});
  expect_documents();
  write<int16_t>(3, sequences_, {0, 1, 3, 4});
  expect_documents();
  write<int32_t>(4, sequences_, {0, 1, 3, 4});
  expect_documents();
  write<int64_t>(5, sequences_, {0, 1, 3, 4});
  expect_documents();
  write<uint8_t>(1, {{1, 2}, {255}}, {0, 1, 1, 2});  // the second document is empty
  EXPECT_EQ(import().documents, 3);
  EXPECT_EQ(ShardReader(folder_ / "a.h5").offsets(), (std::vector<int64_t>{0, 3, 4, 6}));
}

TEST_F(MegatronTest, WhatIsWrongIsNamed) {
  expect_contains(refused(), {".idx: No such file"});
  write<uint16_t>(8, sequences_, {0, 1, 3, 4});
  expect_contains(changed(".idx", 0, "TNTIDX"), {".idx: byte 0: expected a Megatron index"});
  expect_contains(changed(".idx", 9, "\x02"), {".idx: byte 9: version: expected 1, found 2"});
  expect_contains(changed(".idx", 17, "\x07"), {".idx: byte 17: type code", "found 7"});
  expect_contains(changed(".idx", 18, "\x7f"), {".idx: byte 18: 127 sequences", "do not fit"});
  expect_contains(changed(".idx", 24, "\x7f"), {".idx: byte 18", "do not fit"});
  expect_contains(changed(".bin", 4, "\x65\x01"),
                  {".bin: byte 4: token 357 of sequence 0", "below 357"});
  expect_contains(changed(".idx", 34, "\x64"), {".bin: has 18 bytes", "sequence 0 has 100 tokens"});
  expect_contains(changed(".idx", 34 + 3, "\xff"), {"sequence 0 has -"});
  expect_contains(changed(".idx", 50 + 7, "\xff"), {"sequence 0 has 3 tokens", "from byte -"});
  expect_contains(changed(".idx", 82 + 8, "\x09"),
                  {".idx: byte 90: document index: expected 0 to 4, found 9"});
  expect_contains(changed(".idx", 82 + 24, "\x03"), {"document index: expected 4 to 4, found 3"});
  put_bytes(prefix_ + ".bin", file_bytes(prefix_ + ".bin").substr(0, 17));
  expect_contains(refused(),
                  {".bin: has 17 bytes", "sequence 3 has 1 tokens of 2 bytes from byte 16"});
  put_bytes(prefix_ + ".idx", "MMIDIDX");
  expect_contains(refused(), {"a file of 7 bytes"});
  write<uint16_t>(8, {}, {0});
  expect_contains(refused(), {"no document in it"});
}

}  // namespace
}  // namespace sluice::test
