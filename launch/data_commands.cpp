// launch/data_commands.cpp -- text to tokenizer to shards.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "data/shards/shard.h"
#include "data/text/documents.h"
#include "data/text/ngram.h"
#include "data/tokenizer/encoder.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"
#include "launch/commands.h"

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
static Documents read(const TextInput& in) {
  return read_documents(inputs_of(in), options_of(in), hold_out_of(in));
}

// A bar on terminals, nothing elsewhere.
static void show(const char* what, int64_t done, int64_t all) {
  if (isatty(STDOUT_FILENO) != 1) return;
  fmt::print("\r{} {:3d}%{}", what, all > 0 ? 100 * done / all : 100, done == all ? "\n" : "");
  std::fflush(stdout);
}

void train_tokenizer(const TrainTokenizer& c) {
  SLUICE_CHECK(c.vocab_size > 257, "--vocab-size ", c.vocab_size,
               ": expected more than 257 (256 bytes and <|endoftext|>)");
  const Documents text = read(c.input);
  const int64_t merges = c.vocab_size - 257;
  const BpeTraining learnt =
      train_bpe(text.kept, c.pattern, merges, [&](int64_t n) { show("merges", n, merges); });
  SLUICE_CHECK(int64_t(learnt.merges.size()) == merges, "the text has only ", learnt.merges.size(),
               " pairs that occur twice, --vocab-size ", c.vocab_size, " needs ", merges);
  const Tokenizer tokenizer(learnt, c.pattern);
  tokenizer.save(c.out);
  fmt::print("{}: {} tokens, pattern {}, from {} documents\n", c.out, tokenizer.vocab_size(),
             c.pattern, text.kept.size());
}

void import_tokenizer(const ImportTokenizer& c) {
  std::vector<std::pair<int32_t, std::string>> specials;
  for (const std::string& s : c.specials) {
    const size_t digits = s.find_first_not_of("0123456789");
    if (digits == 0 || digits > 8 || digits == s.npos || s[digits] != '=' || digits + 1 == s.size())
      throw Error("--special: expected ID=TEXT, got \"" + s + "\"");
    specials.emplace_back(std::stoi(s), s.substr(digits + 1));
  }
  const Tokenizer tokenizer = Tokenizer::load_tiktoken(c.input, c.pattern, specials);
  tokenizer.save(c.out);
  fmt::print("{}: {} tokens, {} merges, {} special\n", c.out, tokenizer.vocab_size(),
             tokenizer.merges().by_rank().size(), specials.size());
}

static void write_shard(const std::string& path, const Tokenizer& tokenizer,
                        const std::vector<std::string>& documents) {
  ShardInfo info{.vocab_size = tokenizer.vocab_size(),
                 .end_of_text = tokenizer.end_of_text(),
                 .tokenizer = tokenizer.fingerprint()};
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    info.token_bytes.push_back(uint32_t(tokenizer.token_bytes(id).size()));
  ShardWriter writer(path, info);
  Encoder encoder(tokenizer);
  size_t bytes = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    writer.add_document(encoder.encode(documents[i]));
    bytes += documents[i].size();
    show("encoded", int64_t(i) + 1, int64_t(documents.size()));
  }
  writer.finish();
  fmt::print("{}: {} documents, {} tokens, {} bytes of text ({:.2f} a token)\n", path,
             writer.documents(), writer.tokens(), bytes, double(bytes) / double(writer.tokens()));
}

void encode(const Encode& c) {
  SLUICE_CHECK((hold_out_of(c.input).by != HoldOut::By::nothing) == !c.valid_out.empty(),
               "--valid-fraction (or --valid-tail-fraction) and --valid-out go together");
  const Documents text = read(c.input);
  const Tokenizer tokenizer = Tokenizer::load(c.tokenizer);
  write_shard(c.out, tokenizer, text.kept);
  if (!c.valid_out.empty()) write_shard(c.valid_out, tokenizer, text.held_out);
}

void inspect_shard(const std::string& path) {
  const ShardReader shard(path);
  std::vector<int32_t> tokens(static_cast<size_t>(kShardChunk));
  for (int64_t at = 0; at < shard.tokens(); at += kShardChunk)
    shard.read(at, std::min(kShardChunk, shard.tokens() - at), tokens.data());
  fmt::print(
      "{}: {} documents, {} tokens, {} bytes of text, vocabulary {}, tokenizer {}; every checksum "
      "is right\n",
      path, shard.documents(), shard.tokens(), shard.text_bytes(), shard.info().vocab_size,
      shard.info().tokenizer);
}

void ngram(const TextInput& input, int order) {
  SLUICE_CHECK(hold_out_of(input).by != HoldOut::By::nothing,
               "--valid-fraction or --valid-tail-fraction: expected above 0, nothing is held out");
  const Documents text = read(input);
  size_t bytes = 0;
  for (const std::string& d : text.held_out) bytes += d.size();
  fmt::print("byte {}-gram on the {} bytes held out: {:.4f} bits/byte\n", order, bytes,
             ngram_bits_per_byte(text.kept, text.held_out, order));
}

}  // namespace sluice::launch
