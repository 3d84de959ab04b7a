// trainer/eval/exact_match.cpp -- prompts, greedy texts, answers.
#include "trainer/eval/exact_match.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/generate/scheduler.h"
#include "model/generate/text_stream.h"

namespace sluice {

std::vector<MatchExample> make_examples(const std::vector<JsonLine>& lines,
                                        const std::string& prompt, const std::string& answer_field,
                                        const AnswerRule& rule) {
  std::vector<MatchExample> examples;
  for (const JsonLine& line : lines) {
    const nlohmann::json& given = field_of(line, answer_field);
    const std::string text = given.is_number_float() ? fmt::format("{:.12f}", given.get<double>())
                                                     : text_of(line, answer_field);
    const std::optional<std::string> answer =
        rule.numeric() && !given.is_number() ? rule.extract(text) : text;
    if (!answer)
      throw Error(cat(line.where, ": ", answer_field, ": expected a number, got \"",
                      text.substr(0, 60), "\""));
    examples.push_back({fill_in(prompt, line), normalised(*answer), line.where});
  }
  return examples;
}

std::vector<MatchAnswer> answer_examples(const TextGenerator& generate,
                                         const std::vector<MatchExample>& examples,
                                         const AnswerRule& rule) {
  std::vector<std::string> prompts;
  for (const MatchExample& e : examples) prompts.push_back(e.prompt);
  const std::vector<std::string> texts = generate(prompts);
  std::vector<MatchAnswer> answers;
  for (size_t i = 0; i < texts.size(); ++i) {
    MatchAnswer a{.text = texts[i], .answer = rule.extract(texts[i])};
    if (a.answer) a.answer = normalised(*a.answer);
    a.right = a.answer == examples[i].answer;
    answers.push_back(std::move(a));
  }
  return answers;
}

MatchResult grade(const std::vector<MatchAnswer>& answers) {
  MatchResult r;
  for (const MatchAnswer& a : answers) {
    r.exact.add(a.right);
    r.without_answer += !a.answer;
  }
  return r;
}

nlohmann::ordered_json to_json(const MatchResult& r) {
  return {{"kind", "exact_match"},
          {"examples", r.exact.total},
          {"exact_match", r.exact.value()},
          {"exact_match_stderr", r.exact.standard_error()},
          {"without_answer", r.without_answer}};
}

std::string to_string(const MatchResult& r) {
  return fmt::format("exact match {:.4f} +- {:.4f}   {} of {}, {} texts without an answer\n",
                     r.exact.value(), r.exact.standard_error(), r.exact.right, r.exact.total,
                     r.without_answer);
}

std::string answer_lines(const std::vector<MatchExample>& examples,
                         const std::vector<MatchAnswer>& answers) {
  std::string lines;
  for (size_t i = 0; i < examples.size(); ++i) {
    nlohmann::ordered_json line{{"index", i}, {"text", answers[i].text}};
    line["answer"] = answers[i].answer ? nlohmann::ordered_json(*answers[i].answer) : nullptr;
    line["correct"] = examples[i].answer;
    line["right"] = answers[i].right;
    lines += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  return lines;
}

static std::vector<std::string> greedy_texts(const LoadedModel& model, ThreadPool& threads,
                                             const Tokenizer& tokenizer,
                                             const GreedyOptions& options, const Report& report,
                                             const std::vector<std::string>& prompts) {
  Encoder encoder(tokenizer);
  std::vector<Request> requests;
  int64_t longest = 0;
  for (const std::string& prompt : prompts) {
    std::vector<int32_t> tokens{tokenizer.end_of_text()};
    encoder.encode(prompt, tokens);
    longest = std::max(longest, int64_t(tokens.size()));
    requests.push_back({.prompt = std::move(tokens),
                        .max_new_tokens = options.max_new_tokens,
                        .stop_tokens = {tokenizer.end_of_text()}});
  }
  const auto n = int64_t(prompts.size());
  Generator generator(
      {.threads = &threads}, *model.params, *model.lm, DType::f32,
      {.slots = std::min(options.slots, n), .max_tokens = longest + options.max_new_tokens});
  Scheduler scheduler(generator);
  std::vector<std::string> texts(prompts.size());
  std::vector<TextStream> streams(prompts.size(), TextStream(options.stop));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_token = [&, i](int32_t id) {
      texts[i] += streams[i].push(tokenizer.token_bytes(id));
      return !streams[i].stopped();
    };
    scheduler.add(std::move(requests[i]));
  }
  int64_t finished = 0;
  for (bool more = true; more; report(finished, n)) {
    more = scheduler.step();
    while (finished < n && scheduler.finished(finished)) ++finished;
  }
  for (size_t i = 0; i < texts.size(); ++i) texts[i] += streams[i].finish();
  return texts;
}

TextGenerator greedy_generator(const LoadedModel& model, ThreadPool& threads,
                               const Tokenizer& tokenizer, const GreedyOptions& options,
                               const Report& report) {
  return [&model, &threads, &tokenizer, options, report](const std::vector<std::string>& prompts) {
    return greedy_texts(model, threads, tokenizer, options, report, prompts);
  };
}

}  // namespace sluice
