// launch/eval_commands.cpp -- a table on the terminal, the same numbers in RUN/eval.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "launch/commands.h"
#include "model/export/posix_file.h"
#include "trainer/eval/by_position.h"
#include "trainer/eval/exact_match.h"
#include "trainer/eval/multiple_choice.h"
#include "trainer/eval/needle.h"
#include "trainer/eval/perplexity.h"
#include "trainer/eval/progress_bar.h"
#include "trainer/eval/subject.h"
#include "trainer/loop/exit_code.h"

namespace sluice::launch {

namespace {

// More of a haystack is not read: enough to draw from, and for the longest row of any tokenizer.
size_t haystack_bytes(int64_t longest_tokens) {
  return std::max<size_t>(4 << 20, size_t(longest_tokens) * 32);
}

int thread_count(const EvalRun& e) {
  return e.threads > 0 ? int(e.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
}

Subject open(const EvalRun& e) {
  Subject s = open_subject(e.run, e.out);
  for (const std::string& p : s.model.skipped) fmt::print(stderr, "BROKEN CHECKPOINT {}\n", p);
  fmt::print("checkpoint of step {}, {}\n", s.model.checkpoint.step, s.model.checkpoint.folder);
  return s;
}

std::string name_of(const EvalRun& e, const std::string& otherwise) {
  return e.name.empty() ? otherwise : e.name;
}
std::string name_of_file(const EvalRun& e, const std::string& file) {
  return name_of(e, std::filesystem::path(file).stem().string());
}

std::optional<int64_t> limit_of(int64_t limit) {
  return limit > 0 ? std::optional(limit) : std::nullopt;
}

void show(const std::string& table, const std::string& path) {
  fmt::print("{}{}\n", table, path);
}

// The run's, or those that were named.
std::vector<NamedSet> sets_of(const EvalPerplexity& c, const Subject& s) {
  DataConfig data = s.data;
  if (!c.sets.empty()) {
    data.validation.clear();
    data.task.reset();
  }
  for (const std::string& set : c.sets) {
    const size_t equals = set.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == set.size() ||
        !data.validation.emplace(set.substr(0, equals), set.substr(equals + 1)).second)
      throw ExitError(ExitCode::config,
                      cat("--set ", set, ": expected NAME=SHARD, each name once"));
  }
  std::vector<NamedSet> sets = with_code(ExitCode::data, [&] {
    return validation_sets(data, s.model.config.train.micro_batch_tokens);
  });
  if (sets.empty())
    throw ExitError(ExitCode::config, "the run has no validation sets: --set NAME=SHARD");
  return sets;
}

}  // namespace

void eval_perplexity(const EvalRun& e, const EvalPerplexity& c) {
  const Subject s = open(e);
  const std::vector<NamedSet> sets = sets_of(c, s);
  ThreadPool threads(thread_count(e));
  ModelScorer scorer(s.model, threads, Mode::run);
  std::map<std::string, SetLoss> losses;
  with_code(ExitCode::data, [&] {
    for (const NamedSet& named : sets)
      if (const ShardInfo* shard = named.set.shard_info())
        check_tokenizer(load_tokenizer(s), *shard, named.path);
    for (const NamedSet& named : sets) {
      ProgressBar bar(named.name);
      losses[named.name] = score_set(scorer, named.set, std::ref(bar));
    }
  });
  show(to_string(losses), save_result(s, name_of(e, "perplexity"), to_json(losses)));
}

void eval_choice(const EvalRun& e, const EvalChoice& c) {
  const Subject s = open(e);
  ThreadPool threads(thread_count(e));
  ModelScorer scorer(s.model, threads, Mode::batch_invariant);
  with_code(ExitCode::data, [&] {
    const Tokenizer tokenizer = load_tokenizer(s);
    const std::vector<ChoiceQuestion> questions = make_questions(
        read_json_lines(c.file, limit_of(c.limit)), {.prompt = c.prompt,
                                                     .choice = c.choice,
                                                     .choices_field = c.choices_field,
                                                     .answer_field = c.answer_field});
    const std::vector<ChoiceAnswer> answers = [&] {
      ProgressBar bar("choices");
      return answer_questions(scorer, tokenizer, questions, c.batch_tokens, std::ref(bar));
    }();
    const ChoiceResult result = grade(questions, answers);
    const std::string name = name_of_file(e, c.file);
    save_lines(s, name + ".questions.jsonl", answer_lines(questions, answers));
    nlohmann::ordered_json json = to_json(result);
    json.update({{"file", c.file}, {"prompt", c.prompt}, {"choice", c.choice}});
    show(to_string(result), save_result(s, name, json));
  });
}

void eval_match(const EvalRun& e, const EvalMatch& c) {
  const AnswerRule rule = with_code(ExitCode::config, [&] {
    if (!c.regex.empty()) return AnswerRule::regex(c.regex);
    return c.rule == "line" ? AnswerRule::line() : AnswerRule::last_number();
  });
  const Subject s = open(e);
  ThreadPool threads(thread_count(e));
  with_code(ExitCode::data, [&] {
    const Tokenizer tokenizer = load_tokenizer(s);
    const std::vector<MatchExample> examples =
        make_examples(read_json_lines(c.file, limit_of(c.limit)), c.prompt, c.answer_field, rule);
    const std::vector<MatchAnswer> answers = [&] {
      ProgressBar bar("texts");
      const GreedyOptions greedy{
          .max_new_tokens = c.max_new_tokens,
          .slots = c.slots,
          .stop = c.stop.empty() ? std::vector<std::string>{"\n\n"} : c.stop};
      return answer_examples(greedy_generator(s.model, threads, tokenizer, greedy, std::ref(bar)),
                             examples, rule);
    }();
    const MatchResult result = grade(answers);
    const std::string name = name_of_file(e, c.file);
    save_lines(s, name + ".examples.jsonl", answer_lines(examples, answers));
    nlohmann::ordered_json json = to_json(result);
    json.update({{"file", c.file}, {"prompt", c.prompt}});
    show(to_string(result), save_result(s, name, json));
  });
}

void eval_needle(const EvalRun& e, const EvalNeedle& c) {
  const Subject s = open(e);
  const int64_t L = s.data.seq_len_tokens;
  NeedleOptions options{
      .lengths = c.lengths, .depths = c.depths, .trials = c.trials, .seed = c.seed};
  if (options.lengths.empty()) options.lengths = {L, 2 * L, 4 * L};
  const int64_t longest = *std::max_element(options.lengths.begin(), options.lengths.end());
  ThreadPool threads(thread_count(e));
  ModelScorer scorer(s.model, threads, Mode::batch_invariant);
  with_code(ExitCode::data, [&] {
    const Tokenizer tokenizer = load_tokenizer(s);
    const std::vector<int32_t> haystack =
        tokenizer.encode(read_text(c.haystack).substr(0, haystack_bytes(longest)));
    const std::vector<Continuation> list = make_needles(tokenizer, haystack, options);
    ProgressBar bar("needles");
    const NeedleGrid grid =
        grade(options, score_continuations(scorer, list, longest, std::ref(bar)));
    nlohmann::ordered_json json = to_json(options, grid);
    json["haystack"] = c.haystack;
    json["train_seq_len_tokens"] = L;
    show(to_string(options, grid), save_result(s, name_of(e, "needle"), json));
  });
}

void eval_position(const EvalRun& e, const EvalPosition& c) {
  const Subject s = open(e);
  if (c.shard.empty() && s.data.validation.empty())
    throw ExitError(ExitCode::config, "the run has no validation sets: name a shard");
  const std::string path = c.shard.empty() ? s.data.validation.begin()->second : c.shard;
  const int64_t L = s.data.seq_len_tokens,
                bucket = c.bucket_tokens > 0 ? c.bucket_tokens : std::max<int64_t>(1, L / 2);
  ThreadPool threads(thread_count(e));
  ModelScorer scorer(s.model, threads, Mode::run);
  with_code(ExitCode::data, [&] {
    const ShardReader shard(path);
    check_tokenizer(load_tokenizer(s), shard.info(), path);
    ProgressBar bar("rows");
    const PositionResult r = loss_by_position(
        scorer, shard, {.row_tokens = L * c.factor, .bucket_tokens = bucket, .rows = c.rows},
        std::ref(bar));
    nlohmann::ordered_json json = to_json(r, bucket, L);
    json["shard"] = path;
    show(to_string(r, L), save_result(s, name_of(e, "by_position"), json));
  });
}

}  // namespace sluice::launch
