// launch/eval_arguments.cpp -- sluice eval RUN [KIND ...].
#include "launch/arguments.h"

namespace sluice::launch {

namespace {

EvalRun run;

void add_perplexity(CLI::App& eval) {
  static EvalPerplexity c;
  CLI::App* p = eval.add_subcommand(
      "perplexity", "loss, perplexity, bits per byte of shards: the digits of validation");
  p->add_option("--set", c.sets, "NAME=SHARD, repeatable; without any: the run's validation sets")
      ->allow_extra_args(false);
  p->callback([] { eval_perplexity(run, c); });
  eval.callback([&eval] {
    if (eval.get_subcommands().empty()) eval_perplexity(run, {});
  });
}

void add_choice(CLI::App& eval) {
  static EvalChoice c{.file = {},
                      .prompt = "{question}\\nAnswer:",
                      .choice = " {choice}",
                      .choices_field = "choices",
                      .answer_field = "answer"};
  CLI::App* m = eval.add_subcommand("multiple-choice", "the likeliest choice after a question");
  m->add_option("file", c.file, "JSON lines")->required();
  m->add_option("--prompt", c.prompt, "{FIELD} is a field of the line, {choices} all choices")
      ->capture_default_str();
  m->add_option("--choice", c.choice, "what is scored: {choice} its text, {letter} its letter")
      ->capture_default_str();
  m->add_option("--choices-field", c.choices_field, "list of texts")->capture_default_str();
  m->add_option("--answer-field", c.answer_field, "index from 0, or a letter")
      ->capture_default_str();
  m->add_option("--limit", c.limit, "the first questions only")->check(count());
  m->add_option("--batch-tokens", c.batch_tokens, "of a forward pass: bounds its memory")
      ->check(count())
      ->capture_default_str();
  m->callback([] { eval_choice(run, c); });
}

void add_match(CLI::App& eval) {
  static EvalMatch c{.file = {},
                     .prompt = "{question}\\nAnswer:",
                     .answer_field = "answer",
                     .rule = "last-number",
                     .regex = {},
                     .stop = {}};
  CLI::App* m = eval.add_subcommand("exact-match", "greedy texts, their answer compared");
  m->add_option("file", c.file, "JSON lines")->required();
  m->add_option("--prompt", c.prompt, "{FIELD} is a field of the line")->capture_default_str();
  m->add_option("--answer-field", c.answer_field)->capture_default_str();
  CLI::Option* rule = m->add_option("--rule", c.rule, "the answer in a text: last-number | line")
                          ->check(CLI::IsMember({"last-number", "line"}))
                          ->capture_default_str();
  m->add_option("--regex", c.regex, "the answer is its first match, or that one's first group")
      ->excludes(rule);
  m->add_option("--stop", c.stop,
                "text that ends an answer, repeatable; without any: an empty line")
      ->allow_extra_args(false);
  m->add_option("--limit", c.limit, "the first examples only")->check(count());
  m->add_option("--max-new-tokens", c.max_new_tokens)->check(count())->capture_default_str();
  m->add_option("--slots", c.slots, "texts at a time")->check(count())->capture_default_str();
  m->callback([] { eval_match(run, c); });
}

void add_needle(CLI::App& eval) {
  static EvalNeedle c;
  CLI::App* n = eval.add_subcommand("needle", "a sentence in a haystack, by length and depth");
  n->add_option("haystack", c.haystack, "a text file")->required();
  n->add_option("--lengths", c.lengths, "tokens: 512,1024; without: training's times 1, 2, 4")
      ->delimiter(',')
      ->check(count());
  n->add_option("--depths", c.depths, "0 to 1")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  n->add_option("--trials", c.trials, "of each length and depth")
      ->check(count())
      ->capture_default_str();
  n->add_option("--seed", c.seed)->capture_default_str();
  n->callback([] { eval_needle(run, c); });
}

void add_position(CLI::App& eval) {
  static EvalPosition c;
  CLI::App* p =
      eval.add_subcommand("by-position", "loss by position, in rows longer than training's");
  p->add_option("shard", c.shard, "without: the run's first validation set");
  p->add_option("--factor", c.factor, "rows of so many times training's tokens")
      ->check(count())
      ->capture_default_str();
  p->add_option("--bucket-tokens", c.bucket_tokens, "positions a mean; without: half of training's")
      ->check(count());
  p->add_option("--rows", c.rows, "at most")->check(count())->capture_default_str();
  p->callback([] { eval_position(run, c); });
}

}  // namespace

void add_eval(CLI::App& app) {
  CLI::App* e = app.add_subcommand("eval", "what a checkpoint knows; without a kind: perplexity");
  e->add_option("run", run.run, "a run's folder, or one checkpoint of it")->required();
  e->add_option("--name", run.name, "of the result, RUN/eval/NAME.json");
  e->add_option("--out", run.out, "folder of the result instead of RUN/eval");
  e->add_option("--threads", run.threads, "0: one a core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  e->require_subcommand(0, 1);
  e->fallthrough();
  add_perplexity(*e);
  add_choice(*e);
  add_match(*e);
  add_needle(*e);
  add_position(*e);
}

}  // namespace sluice::launch
