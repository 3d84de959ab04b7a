// launch/data_commands.cpp -- text to tokenizer to shards.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "data/encode/count_words.h"
#include "data/encode/encode.h"
#include "data/encode/megatron.h"
#include "data/text/documents.h"
#include "data/text/ngram.h"
#include "launch/commands.h"
#include "launch/progress.h"
#include "trainer/loop/exit_code.h"
#include "trainer/loop/signals.h"

namespace sluice::launch {

static TextOptions options_of(const TextInput& in) {
  return {.split = in.split == "blank-lines" ? TextSplit::blank_lines : TextSplit::whole,
          .field = in.field};
}
static HoldOut hold_out_of(const TextInput& in) {
  if (in.valid_tail_fraction > 0)
    return {.by = HoldOut::By::tail, .fraction = in.valid_tail_fraction};
  if (in.valid_fraction > 0)
    return {.by = HoldOut::By::hash, .fraction = in.valid_fraction, .seed = in.valid_seed};
  return {};
}
static std::vector<InputFile> inputs_of(const TextInput& in) {
  return find_inputs(in.paths, in.format == "jsonl" ? TextFormat::json_lines : TextFormat::text);
}
static int threads_of(int64_t asked) {
  return asked > 0 ? int(asked) : int(std::max(1u, std::thread::hardware_concurrency()));
}
static int64_t stored_bytes(const std::vector<InputFile>& inputs) {
  int64_t bytes = 0;
  for (const InputFile& f : inputs) {
    if (f.bytes == 0) return 0;  // a pipe: nobody knows
    bytes += f.bytes;
  }
  return bytes;
}
static void need_arguments(bool ok, const char* what) {
  if (!ok) throw ExitError(ExitCode::config, what);
}
static constexpr const char* kTogether =
    "--valid-fraction (or --valid-tail-fraction) and --valid-out go together";

static void train(const TrainTokenizer& c) {
  const int64_t merges = c.vocab_size - 257;
  CountedWords words;
  {
    const std::vector<InputFile> inputs = inputs_of(c.input);
    const int64_t all = stored_bytes(inputs);
    Progress bar("words");
    words = count_words(inputs, options_of(c.input), hold_out_of(c.input), c.pattern,
                        threads_of(c.input.threads),
                        [&](int64_t file, int64_t text) { bar.show(file, all, text); });
  }
  Progress bar("merges");
  const BpeTraining learnt =
      train_bpe(words.counts, merges, [&](int64_t n) { bar.show(n, merges); });
  if (int64_t(learnt.merges.size()) < merges)
    throw Error(cat("the text has only ", learnt.merges.size(),
                    " pairs that occur twice, --vocab-size ", c.vocab_size, " needs ", merges));
  const Tokenizer tokenizer(learnt, c.pattern);
  tokenizer.save(c.out);
  fmt::print("{}: {} tokens, pattern {}, from {} documents, {} bytes, {} distinct words\n", c.out,
             tokenizer.vocab_size(), c.pattern, words.documents, words.text_bytes,
             words.counts.size());
}

void train_tokenizer(const TrainTokenizer& c) {
  need_arguments(c.vocab_size > 257,
                 "--vocab-size: expected more than 257 (256 bytes and <|endoftext|>)");
  with_code(ExitCode::data, [&] { train(c); });
}

static void import_tiktoken(const ImportTokenizer& c) {
  std::vector<std::pair<int32_t, std::string>> specials;
  for (const std::string& s : c.specials) {
    const size_t digits = s.find_first_not_of("0123456789");
    if (digits == 0 || digits > 8 || digits == s.npos || s[digits] != '=' || digits + 1 == s.size())
      throw ExitError(ExitCode::config, "--special: expected ID=TEXT, got \"" + s + "\"");
    specials.emplace_back(std::stoi(s), s.substr(digits + 1));
  }
  const Tokenizer tokenizer = Tokenizer::load_tiktoken(c.input, c.pattern, specials);
  tokenizer.save(c.out);
  fmt::print("{}: {} tokens, {} merges, {} special\n", c.out, tokenizer.vocab_size(),
             tokenizer.merges().by_rank().size(), specials.size());
}

void import_tokenizer(const ImportTokenizer& c) {
  with_code(ExitCode::data, [&] { import_tiktoken(c); });
}

// The same file by two names, whether it is there or not.
static bool same_file(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  std::error_code failed, failed_too;
  const fs::path one = fs::weakly_canonical(fs::absolute(a, failed), failed),
                 two = fs::weakly_canonical(fs::absolute(b, failed_too), failed_too);
  return a == b || (!failed && !failed_too && one == two);
}

static void report(const std::string& path, const EncodeProgress& shard) {
  fmt::print("{}: {} documents, {} tokens, {} bytes of text ({:.2f} a token)\n", path,
             shard.documents, shard.tokens, shard.text_bytes,
             double(shard.text_bytes) / double(shard.tokens));
}

static int run_encode(const Encode& c) {
  const EncodeJob job{.inputs = inputs_of(c.input),
                      .text = options_of(c.input),
                      .hold_out = hold_out_of(c.input),
                      .out = c.out,
                      .held_out_out = c.valid_out,
                      .threads = threads_of(c.input.threads)};
  const Tokenizer tokenizer = Tokenizer::load(c.tokenizer);
  const int64_t all = stored_bytes(job.inputs);
  const StopSignals signals;
  Progress bar("encoded");
  const EncodeResult result = encode(
      job, tokenizer, [&](const EncodeProgress& p) { bar.show(p.file_bytes, all, p.text_bytes); },
      [&] { return signals.received() != 0; });
  if (result.resumed_at > 0)
    fmt::print("went on after {} bytes of text that were encoded before\n", result.resumed_at);
  if (!result.finished) {
    fmt::print("{}: what is encoded is kept in {}.partial; the same command goes on\n",
               signal_name(signals.received()), c.out);
    return int(signals.received() == SIGINT ? ExitCode::interrupted : ExitCode::requeue);
  }
  report(c.out, result.kept);
  if (!c.valid_out.empty()) report(c.valid_out, result.held_out);
  return 0;
}

int encode(const Encode& c) {
  need_arguments((hold_out_of(c.input).by != HoldOut::By::nothing) == !c.valid_out.empty(),
                 kTogether);
  need_arguments(c.valid_out.empty() || !same_file(c.out, c.valid_out),
                 "--out and --valid-out: expected two files");
  return with_code(ExitCode::data, [&] { return run_encode(c); });
}

void import_megatron(const ImportMegatron& c) {
  with_code(ExitCode::data, [&] {
    const Tokenizer tokenizer = Tokenizer::load(c.tokenizer);
    MegatronImport done;
    {
      Progress bar("imported");
      done = sluice::import_megatron(c.prefix, tokenizer, c.out,
                                     [&](int64_t now, int64_t all) { bar.show(now, all, now); });
    }
    report(c.out,
           {.text_bytes = done.text_bytes, .documents = done.documents, .tokens = done.tokens});
    fmt::print("{} of the documents ended with the tokenizer's end of text, which is kept once\n",
               done.ended);
  });
}

static void score(const TextInput& input, int order) {
  const Documents text = read_documents(inputs_of(input), options_of(input), hold_out_of(input));
  size_t bytes = 0;
  for (const std::string& d : text.held_out) bytes += d.size();
  fmt::print("byte {}-gram on the {} bytes held out: {:.4f} bits/byte\n", order, bytes,
             ngram_bits_per_byte(text.kept, text.held_out, order));
}

void ngram(const TextInput& input, int order) {
  need_arguments(
      hold_out_of(input).by != HoldOut::By::nothing,
      "--valid-fraction or --valid-tail-fraction: expected above 0, nothing is held out");
  with_code(ExitCode::data, [&] { score(input, order); });
}

}  // namespace sluice::launch
