// launch/main.cpp -- the command line. Each subcommand fills a struct and calls one function.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "launch/commands.h"
#include "trainer/loop/exit_code.h"

namespace {

using namespace sluice::launch;

void add_text_options(CLI::App& app, TextInput& in) {
  app.add_option("input", in.path, "text or .jsonl file")->required();
  app.add_option("--field", in.field, "string to take from each JSON line")->capture_default_str();
  app.add_option("--split", in.split, "documents of a text file: whole | blank-lines")
      ->check(CLI::IsMember({"whole", "blank-lines"}))
      ->capture_default_str();
  app.add_option("--valid-fraction", in.valid_fraction,
                 "hold this share of the bytes out, at the end")
      ->check(CLI::Range(0.0, 0.99));
}

void add_config_options(CLI::App& app, ConfigSource& c) {
  app.add_option("config", c.file, "YAML file")->required();
  app.add_option("--set", c.set, "override a key: --set model.ratio=7:1")->allow_extra_args(false);
}

void add_data(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "text -> tokenizer -> token shards");
  data->require_subcommand(1);

  static TrainTokenizer tok;
  CLI::App* t = data->add_subcommand("train-tokenizer", "byte-level BPE -> tokenizer.json");
  add_text_options(*t, tok.input);
  t->add_option("--out", tok.out, "tokenizer.json to write")->required();
  t->add_option("--vocab-size", tok.vocab_size)->capture_default_str();
  t->add_option("--pattern", tok.pattern, "pre-tokenizer: gpt2 | qwen2")
      ->check(CLI::IsMember({"gpt2", "qwen2"}))
      ->capture_default_str();
  t->callback([] { train_tokenizer(tok); });

  static Encode enc;
  CLI::App* e = data->add_subcommand("encode", "text -> HDF5 token shards");
  add_text_options(*e, enc.input);
  e->add_option("--tokenizer", enc.tokenizer, "tokenizer.json")->required();
  e->add_option("--out", enc.out, "shard to write")->required();
  e->add_option("--valid-out", enc.valid_out, "shard of the held-out part");
  e->callback([] { encode(enc); });

  static std::string shard;
  CLI::App* i = data->add_subcommand("inspect", "what is in a shard; verifies every checksum");
  i->add_option("shard", shard)->required();
  i->callback([] { inspect_shard(shard); });

  static TextInput text;
  static int order = 3;
  CLI::App* n =
      data->add_subcommand("ngram", "bits per byte of a byte n-gram on the held-out part");
  add_text_options(*n, text);
  n->add_option("--order", order, "3: a trigram")->check(CLI::Range(1, 5))->capture_default_str();
  n->callback([] { ngram(text, order); });
}

void add_runs(CLI::App& app, int& status) {
  static ConfigSource run, shown;
  CLI::App* t = app.add_subcommand("train", "pretraining; the same command resumes");
  add_config_options(*t, run);
  static bool fresh = false;
  t->add_flag("--fresh", fresh, "a new run: refuse a folder that a run has used");
  t->footer(sluice::kExitCodes);
  t->callback([&status] { status = train(run, fresh); });

  CLI::App* c = app.add_subcommand("config", "check a config");
  add_config_options(*c, shown);
  static bool print = false;
  c->add_flag("--print", print, "show it with every default");
  c->callback([] { print_config(shown); });

  static Generate gen;
  CLI::App* g = app.add_subcommand("generate", "texts from a checkpoint");
  g->add_option("run", gen.run, "a run's folder, or one checkpoint of it")->required();
  g->add_option("--prompt", gen.prompts,
                "text to continue, repeatable; without any: a new document")
      ->allow_extra_args(false);
  g->add_option("--prompts", gen.prompts_file, "file of prompts: .jsonl, or text with one a line");
  g->add_option("--field", gen.field, "string to take from each JSON line")->capture_default_str();
  g->add_option("--slots,--batch-size", gen.slots, "sequences at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  g->add_option("--prefill-chunk-tokens", gen.prefill_chunk_tokens, "bounds the memory of a call")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  g->add_option("--max-new-tokens", gen.max_new_tokens)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  g->add_option("--temperature", gen.temperature, "0: the likeliest token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  g->add_option("--top-k", gen.top_k, "draw from this many tokens; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  g->add_option("--top-p", gen.top_p, "draw from the likeliest tokens with this share of the mass")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  g->add_option("--seed", gen.seed, "with a request's number: its random numbers")
      ->capture_default_str();
  g->add_option("--stop", gen.stop, "text that ends a sample and is left out, repeatable")
      ->allow_extra_args(false);
  g->add_flag("--json", gen.json, "one JSON line a prompt: prompt, text, tokens, logprobs, stop");
  g->add_option("--threads", gen.threads, "0: one a core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  g->callback([] { generate(gen); });
}

void add_bench(CLI::App& app) {
  CLI::App* bench =
      app.add_subcommand("bench", "correctness first, then speed beside the machine's");
  bench->require_subcommand(1);
  static BenchOp op;
  CLI::App* o = bench->add_subcommand("op", "one operator: GB/s or GFLOP/s, share of copy or GEMM");
  o->add_option("name", op.op, "kda, mla, linear, ...: a program bench_<name>")->required();
  o->footer("What follows goes to Google Benchmark: --benchmark_filter=forward");
  o->prefix_command();
  o->callback([o] {
    op.arguments = o->remaining();
    bench_op(op);
  });

  static BenchStep step;
  CLI::App* s = bench->add_subcommand("step", "training steps of a config, on random tokens");
  add_config_options(*s, step.config);
  s->add_option("--repeats", step.repeats, "measured steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  s->add_flag("!--no-check", step.check, "leave the comparison with f64 out");
  s->add_flag("--json", step.json, "for programs");
  s->callback([] { bench_step(step); });

  static BenchDecode dec;
  CLI::App* d = bench->add_subcommand("decode", "generation after a context of random tokens");
  add_config_options(*d, dec.config);
  d->add_option("--context-tokens", dec.context_tokens)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  d->add_option("--new-tokens", dec.new_tokens, "measured")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  d->add_option("--slots", dec.slots, "sequences at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  d->add_flag("--json", dec.json, "for programs");
  d->callback([] { bench_decode(dec); });
}

void add_checks(CLI::App& app, int& status) {
  static std::string config;
  CLI::App* g = app.add_subcommand("gradcheck", "backward against finite differences, f64");
  g->add_option("config", config, "a model of yours; without one, small models of every kind");
  g->callback([] { gradcheck(config); });

  static Inspect seen;
  CLI::App* i = app.add_subcommand("inspect", "what is in a checkpoint, and is it intact?");
  i->add_option("path", seen.path, "a run's folder, or one checkpoint of it")->required();
  i->add_flag("--json", seen.json, "for programs");
  i->add_flag("--verify", seen.verify, "read every byte of all checkpoints of a run");
  i->callback([&status] { status = inspect(seen) ? 0 : 1; });

  static std::string a, b;
  CLI::App* c = app.add_subcommand("compare", "are two runs the same, bit for bit?");
  c->add_option("run_a", a)->required();
  c->add_option("run_b", b)->required();
  c->callback([&status] { status = compare(a, b) ? 0 : 1; });
}

}  // namespace

int main(int argc, char** argv) {
  int status = 0;
  CLI::App app{"sluice: trains hybrid linear-attention language models"};
  app.set_version_flag("--version", version);
  app.require_subcommand(1);
  add_data(app);
  add_runs(app, status);
  add_bench(app);
  add_checks(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : int(sluice::ExitCode::config);
  } catch (const sluice::ExitError& e) {
    std::fprintf(stderr, "sluice: %s\n", e.what());
    return int(e.code);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sluice: %s\n", e.what());
    return 1;
  }
  return status;
}
