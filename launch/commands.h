// launch/commands.h -- what each subcommand does, without the command line's grammar.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {
struct Config;  // trainer/loop/config.h
}

namespace sluice::launch {

struct TextInput {
  std::vector<std::string> paths;  // files, folders, patterns, "-"
  std::string format = "text";     // of standard input: text | jsonl
  std::string field = "text";
  std::string split = "whole";     // whole | blank-lines
  double valid_fraction = 0;       // of the documents, by hash
  double valid_tail_fraction = 0;  // of the bytes, at the end
  int64_t valid_seed = 1;
  int64_t threads = 0;  // 0: one a core
};

struct TrainTokenizer {
  TextInput input;
  std::string out;
  int64_t vocab_size = 2048;
  std::string pattern = "gpt2";  // a name or a regex
};
void train_tokenizer(const TrainTokenizer& c);

struct ImportTokenizer {
  std::string input, out, pattern;
  std::vector<std::string> specials;  // "ID=TEXT"
};
void import_tokenizer(const ImportTokenizer& c);

struct Encode {
  TextInput input;
  std::string tokenizer, out, valid_out;
};
int encode(const Encode& c);  // the process's exit code (trainer/loop/exit_code.h)
struct ImportMegatron {
  std::string prefix, tokenizer, out;
};
void import_megatron(const ImportMegatron& c);
struct InspectShard {
  std::string path, tokenizer;
  bool json = false;
};
void inspect_shard(const InspectShard& c);
void ngram(const TextInput& input, int order);

struct Synthesize {
  std::string kind, out;
  int64_t examples = 8, seq_len_tokens = 64, seed = 1;
  bool validation = false;
  std::vector<std::string> set;  // keys of data.task
};
void synthesize(const Synthesize& c);

struct ConfigSource {
  std::string file;
  std::vector<std::string> set;  // "a.b=c"
};
// What steps begin .. end - 1 of a run read, or will: one row of each tensor a micro-batch.
struct Batches {
  ConfigSource config;
  int64_t begin = 0, end = 1;
  std::string out;  // .safetensors
};
void batches(const Batches& c);
Config load(const ConfigSource& c);  // an error has the exit code of one in a config
void print_config(const ConfigSource& c);
// The process's exit code (trainer/loop/exit_code.h). fresh: a folder that was used is refused.
// profile: a file for a trace of some steps; empty: none.
int train(const ConfigSource& c, bool fresh, const std::string& profile);
struct PlanRun {
  ConfigSource config;
  int64_t ranks = 1;
  std::string figures;                   // a file of configs/figures; empty: no times
  std::vector<std::string> set_figures;  // "a.b=c" of it
};
void plan(const PlanRun& c);
bool doctor(const ConfigSource& c);  // false: something is in the way

struct Sweep {
  ConfigSource sweep;
  bool plan = false;  // print it and end
};
int sweep(const Sweep& c);  // the process's exit code

struct Export {
  std::string checkpoint;  // a run's folder or one checkpoint of it
  std::string out;
  std::string dtype = "bf16";        // bf16 | f32; of a .gguf file also f16 | q8_0
  std::vector<std::string> engines;  // that must load it
  int64_t context_tokens = 0;        // 0: the longest row of training
  int64_t max_shard_mib = 5120;
};
void export_model(const Export& c);
struct Import {
  std::string folder, out;
};
void import_model(const Import& c);

struct Generate {
  std::string run;  // a run's folder or one checkpoint of it
  std::vector<std::string> prompts;
  std::string prompts_file;  // .jsonl: `field` of each line; else a prompt a line
  std::string field = "prompt";
  int64_t slots = 8;  // sequences at a time
  int64_t max_new_tokens = 200;
  int64_t prefill_chunk_tokens = 256;
  double temperature = 0;
  int64_t top_k = 0;  // 0: all
  double top_p = 1;
  uint64_t seed = 1;
  std::vector<std::string> stop;
  std::string device;  // cpu | cuda; empty: the run's
  bool json = false;
  int64_t threads = 0;  // 0: one a core
};
void generate(const Generate& c);

// sluice eval RUN [KIND ...]. RUN/eval/NAME.json has what is printed.
struct EvalRun {
  std::string run;      // a run's folder or one checkpoint of it
  std::string name;     // of the files; empty: the kind's, or the task file's
  std::string out;      // folder; empty: RUN/eval
  int64_t threads = 0;  // 0: one a core
};
struct EvalPerplexity {
  std::vector<std::string> sets;  // "NAME=SHARD"; none: the run's validation sets
};
void eval_perplexity(const EvalRun& e, const EvalPerplexity& c);

struct EvalChoice {
  std::string file;                                         // JSON lines
  std::string prompt, choice, choices_field, answer_field;  // trainer/eval/multiple_choice.h
  int64_t limit = 0;                                        // questions; 0: all
  int64_t batch_tokens = 4096;
};
void eval_choice(const EvalRun& e, const EvalChoice& c);

struct EvalMatch {
  std::string file;  // JSON lines
  std::string prompt, answer_field;
  std::string rule;   // last-number | line
  std::string regex;  // instead of a rule, if not empty
  std::vector<std::string> stop;
  int64_t limit = 0;  // examples; 0: all
  int64_t max_new_tokens = 256;
  int64_t slots = 16;
};
void eval_match(const EvalRun& e, const EvalMatch& c);

struct EvalNeedle {
  std::string haystack;          // a text
  std::vector<int64_t> lengths;  // none: training's times 1, 2, 4
  std::vector<double> depths{0, 0.25, 0.5, 0.75, 1};
  int64_t trials = 8;
  uint64_t seed = 1;
};
void eval_needle(const EvalRun& e, const EvalNeedle& c);

struct EvalPosition {
  std::string shard;          // empty: the run's first validation set
  int64_t factor = 8;         // rows of so many times training's
  int64_t bucket_tokens = 0;  // 0: half of training's
  int64_t rows = 32;
};
void eval_position(const EvalRun& e, const EvalPosition& c);

struct BenchOp {
  std::string op;
  std::vector<std::string> arguments;  // of Google Benchmark
};
void bench_op(const BenchOp& c);  // does not return
struct BenchStep {
  ConfigSource config;
  int64_t repeats = 5;
  bool check = true, json = false;
};
void bench_step(const BenchStep& c);
struct BenchDecode {
  ConfigSource config;
  std::vector<int64_t> context_tokens{1024};
  int64_t new_tokens = 32, slots = 1;
  bool made_up = false;  // a context that is not prefilled
  bool most_slots = false, json = false;
};
void bench_decode(const BenchDecode& c);
struct BenchPrefill {
  ConfigSource config;
  std::vector<int64_t> context_tokens{131072};
  int64_t chunk_tokens = 8192, points = 5;
  bool json = false;
};
void bench_prefill(const BenchPrefill& c);

void gradcheck(const std::string& config_file);  // empty: the built-in small models
// Bitwise: the losses of two runs, and their newest checkpoints. Returns false if anything differs.
bool compare(const std::string& run_a, const std::string& run_b);

struct Inspect {
  std::string path;  // a run's folder, one checkpoint of it, or a file or folder of other engines
  bool json = false, verify = false;
};
bool inspect(const Inspect& c);  // false: what is shown is broken

struct Report {
  std::vector<std::string> folders;  // of runs and of sweeps
  std::string out = "report.html";
};
void report(const Report& c);

std::string version();  // what was built, and with what

}  // namespace sluice::launch
