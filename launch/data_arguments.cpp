// launch/data_arguments.cpp -- sluice data ...
#include "launch/arguments.h"

namespace sluice::launch {

static constexpr const char* kPatternHelp =
    "pre-tokenizer: gpt2 | qwen2 | cl100k | o200k | kimi | deepseek-v3 | a regex";

static void add_text_options(CLI::App& app, TextInput& in) {
  app.add_option("input", in.paths,
                 "files (.txt, .jsonl, each also .zst, .xz, .gz), folders, 'patterns*', - for "
                 "standard input")
      ->required();
  app.add_option("--format", in.format, "of standard input: text | jsonl")
      ->check(CLI::IsMember({"text", "jsonl"}))
      ->capture_default_str();
  app.add_option("--field", in.field, "string to take from each JSON line")->capture_default_str();
  app.add_option("--split", in.split, "documents of a text file: whole | blank-lines")
      ->check(CLI::IsMember({"whole", "blank-lines"}))
      ->capture_default_str();
  auto* by_hash = app.add_option("--valid-fraction", in.valid_fraction,
                                 "hold out this share of the documents, chosen by their content");
  by_hash->check(CLI::Range(0.0, 0.99));
  app.add_option("--valid-seed", in.valid_seed, "another seed: another choice")
      ->capture_default_str();
  app.add_option("--valid-tail-fraction", in.valid_tail_fraction,
                 "hold out this share of the bytes, the last ones of text files")
      ->check(CLI::Range(0.0, 0.99))
      ->excludes(by_hash);
  app.add_option("--threads", in.threads, "0: one a core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

static void add_train_tokenizer(CLI::App* data) {
  static TrainTokenizer tok;
  CLI::App* t = data->add_subcommand("train-tokenizer", "byte-level BPE -> tokenizer.json");
  add_text_options(*t, tok.input);
  t->add_option("--out", tok.out, "tokenizer.json to write")->required();
  t->add_option("--vocab-size", tok.vocab_size)->capture_default_str();
  t->add_option("--pattern", tok.pattern, kPatternHelp)->capture_default_str();
  t->callback([] { train_tokenizer(tok); });
}

static void add_import_tokenizer(CLI::App* data) {
  static ImportTokenizer import;
  CLI::App* im = data->add_subcommand("import-tokenizer", "a .tiktoken file -> tokenizer.json");
  im->add_option("input", import.input, "ranks: a token in base64 and its rank a line")->required();
  im->add_option("--out", import.out, "tokenizer.json to write")->required();
  im->add_option("--pattern", import.pattern, kPatternHelp)->required();
  im->add_option("--special", import.specials, "ID=TEXT of a special token; the file has none")
      ->required();
  im->callback([] { import_tokenizer(import); });
}

static void add_encode(CLI::App* data, int& status) {
  static Encode enc;
  CLI::App* e = data->add_subcommand("encode", "text -> HDF5 token shards");
  add_text_options(*e, enc.input);
  e->add_option("--tokenizer", enc.tokenizer, "tokenizer.json")->required();
  e->add_option("--out", enc.out, "shard to write")->required();
  e->add_option("--valid-out", enc.valid_out, "shard of the held-out part");
  e->footer(
      "Killed or stopped by Ctrl-C, the same command goes on. Parquet and whatever else: as JSON\n"
      "lines through standard input, sluice data encode - --format jsonl ...");
  e->callback([&status] { status = encode(enc); });
}

static void add_synthesize(CLI::App* data) {
  static Synthesize syn;
  CLI::App* s = data->add_subcommand("synthesize", "examples of a synthetic task -> JSON lines");
  s->add_option("task", syn.kind, "palindrome | mqar | stack")->required();
  s->add_option("--out", syn.out, "file to write")->required();
  s->add_option("--examples", syn.examples)->check(count())->capture_default_str();
  s->add_option("--seq-len-tokens", syn.seq_len_tokens, "of data.seq_len_tokens")
      ->check(count())
      ->capture_default_str();
  s->add_option("--seed", syn.seed, "data.seed of the run whose first examples these are")
      ->capture_default_str();
  s->add_flag("--validation", syn.validation, "those of the validation set, whatever the seed");
  s->add_option("--set", syn.set, "a key of data.task: --set stack.stacks=4")
      ->allow_extra_args(false);
  s->callback([] { synthesize(syn); });
}

static void add_shards(CLI::App* data) {
  static ImportMegatron meg;
  CLI::App* m = data->add_subcommand("import-megatron", "PREFIX.bin and PREFIX.idx -> token shard");
  m->add_option("prefix", meg.prefix, "the files' path without .bin and .idx")->required();
  m->add_option("--tokenizer", meg.tokenizer, "tokenizer.json whose ids these are")->required();
  m->add_option("--out", meg.out, "shard to write")->required();
  m->callback([] { import_megatron(meg); });

  static InspectShard seen;
  CLI::App* i = data->add_subcommand("inspect", "what is in a shard; verifies every checksum");
  i->add_option("shard", seen.path)->required();
  i->add_option("--tokenizer", seen.tokenizer,
                "tokenizer.json: shows how the first document begins");
  i->add_flag("--json", seen.json, "for programs");
  i->callback([] { inspect_shard(seen); });
}

static void add_batches(CLI::App* data) {
  static Batches c;
  CLI::App* b = data->add_subcommand("batches", "what given steps of a run read -> safetensors");
  b->add_option("config", c.config.file, "YAML config of the run")->required();
  b->add_option("--set", c.config.set, "override: a.b=c")->allow_extra_args(false);
  b->add_option("--begin", c.begin, "first step, counted from 0")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  b->add_option("--end", c.end, "the step after the last")->check(count())->capture_default_str();
  b->add_option("--out", c.out, "file to write")->required();
  b->footer(
      "tokens and targets [micro-batches, tokens] i32 (target -1: none), cu_seqlens "
      "[micro-batches,\n"
      "documents + 1] i32, each filled up with the tokens of a micro-batch.");
  b->callback([] { batches(c); });
}

static void add_ngram(CLI::App* data) {
  static TextInput text;
  static int order = 3;
  CLI::App* n =
      data->add_subcommand("ngram", "bits per byte of a byte n-gram on the held-out part");
  add_text_options(*n, text);
  n->add_option("--order", order, "3: a trigram")->check(CLI::Range(1, 5))->capture_default_str();
  n->callback([] { ngram(text, order); });
}

void add_data(CLI::App& app, int& status) {
  CLI::App* data = app.add_subcommand("data", "text -> tokenizer -> token shards");
  data->require_subcommand(1);

  add_train_tokenizer(data);
  add_import_tokenizer(data);
  add_encode(data, status);
  add_synthesize(data);
  add_shards(data);
  add_batches(data);
  add_ngram(data);
}

}  // namespace sluice::launch
