// trainer/eval/multiple_choice.cpp -- questions from lines, answers from scores.
#include "trainer/eval/multiple_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sluice {

using nlohmann::json;

namespace {

char letter(size_t choice) {
  return char('A' + choice);
}

int64_t read_answer(const JsonLine& line, const std::string& field, size_t choices) {
  const json& a = field_of(line, field);
  int64_t index = -1;
  if (a.is_number_integer()) index = a.get<int64_t>();
  if (a.is_string() && a.get<std::string>().size() == 1) index = a.get<std::string>()[0] - 'A';
  if (index < 0 || index >= int64_t(choices))
    throw Error(cat(line.where, ": ", field, ": expected 0 to ", choices - 1, " or A to ",
                    letter(choices - 1), ", got ", a.dump()));
  return index;
}

std::vector<std::string> read_choices(const JsonLine& line, const std::string& field) {
  const json& list = field_of(line, field);
  std::vector<std::string> choices;
  for (const json& c : list.is_array() ? list : json::array())
    if (c.is_string() && !c.get<std::string>().empty()) choices.push_back(c.get<std::string>());
  if (!list.is_array() || choices.size() != list.size() || choices.size() < 2 ||
      choices.size() > 26)
    throw Error(cat(line.where, ": ", field, ": expected a list of 2 to 26 texts, got ",
                    list.dump().substr(0, 60)));
  return choices;
}

int64_t best(const std::vector<double>& score) {
  return std::max_element(score.begin(), score.end()) - score.begin();
}

// Of what was scored, without the blanks that part it from the question.
double text_bytes(const std::string& continuation) {
  const size_t blanks = std::min(continuation.find_first_not_of(" \n\t"), continuation.size());
  return double(std::max<size_t>(continuation.size() - blanks, 1));
}

}  // namespace

std::vector<ChoiceQuestion> make_questions(const std::vector<JsonLine>& lines,
                                           const ChoiceOptions& options) {
  std::vector<ChoiceQuestion> questions;
  for (const JsonLine& line : lines) {
    ChoiceQuestion q{.context = {},
                     .choices = read_choices(line, options.choices_field),
                     .continuations = {},
                     .answer = 0,
                     .where = line.where};
    q.answer = read_answer(line, options.answer_field, q.choices.size());
    JsonLine fields = line;
    std::string all;
    for (size_t c = 0; c < q.choices.size(); ++c) all += cat(letter(c), ". ", q.choices[c], "\n");
    fields.object["choices"] = all;
    q.context = fill_in(options.prompt, fields);
    for (size_t c = 0; c < q.choices.size(); ++c) {
      fields.object["choice"] = q.choices[c];
      fields.object["letter"] = std::string(1, letter(c));
      q.continuations.push_back(fill_in(options.choice, fields));
    }
    questions.push_back(std::move(q));
  }
  return questions;
}

std::vector<ChoiceAnswer> answer_questions(TokenScorer& scorer, const Tokenizer& tokenizer,
                                           const std::vector<ChoiceQuestion>& questions,
                                           int64_t batch_tokens, const Report& report) {
  Encoder encoder(tokenizer);
  std::vector<Continuation> list;
  for (const ChoiceQuestion& q : questions)
    for (const std::string& c : q.continuations)
      list.push_back(make_continuation(encoder, tokenizer.end_of_text(), q.context, c, q.where));
  const std::vector<ContinuationScore> scores =
      score_continuations(scorer, list, batch_tokens, report);
  std::vector<ChoiceAnswer> answers;
  auto score = scores.begin();
  for (const ChoiceQuestion& q : questions) {
    ChoiceAnswer a;
    std::vector<double> normalised;
    for (const std::string& scored : q.continuations) {
      const double ll = score++->log_likelihood;
      if (!std::isfinite(ll)) throw Error(cat(q.where, ": \"", scored, "\" has a score of ", ll));
      a.log_likelihoods.push_back(ll);
      normalised.push_back(ll / text_bytes(scored));
    }
    a.chosen = best(a.log_likelihoods);
    a.chosen_normalised = best(normalised);
    answers.push_back(std::move(a));
  }
  return answers;
}

ChoiceResult grade(const std::vector<ChoiceQuestion>& questions,
                   const std::vector<ChoiceAnswer>& answers) {
  ChoiceResult r;
  for (size_t i = 0; i < questions.size(); ++i) {
    r.plain.add(answers[i].chosen == questions[i].answer);
    r.normalised.add(answers[i].chosen_normalised == questions[i].answer);
    r.chance += 1 / double(questions[i].choices.size());
  }
  r.chance /= double(questions.size());
  return r;
}

nlohmann::ordered_json to_json(const ChoiceResult& r) {
  return {{"kind", "multiple_choice"},
          {"questions", r.plain.total},
          {"acc", r.plain.value()},
          {"acc_stderr", r.plain.standard_error()},
          {"acc_norm", r.normalised.value()},
          {"acc_norm_stderr", r.normalised.standard_error()},
          {"chance", r.chance}};
}

std::string to_string(const ChoiceResult& r) {
  auto row = [](const char* name, const Accuracy& a) {
    return fmt::format("{:<9} {:.4f} +- {:.4f}   {} of {}\n", name, a.value(), a.standard_error(),
                       a.right, a.total);
  };
  return row("acc", r.plain) + row("acc_norm", r.normalised) +
         fmt::format("{:<9} {:.4f}\n", "chance", r.chance);
}

std::string answer_lines(const std::vector<ChoiceQuestion>& questions,
                         const std::vector<ChoiceAnswer>& answers) {
  std::string lines;
  for (size_t i = 0; i < questions.size(); ++i)
    lines += nlohmann::ordered_json{{"index", i},
                                    {"log_likelihoods", answers[i].log_likelihoods},
                                    {"chosen", answers[i].chosen},
                                    {"chosen_normalised", answers[i].chosen_normalised},
                                    {"correct", questions[i].answer}}
                 .dump() +
             "\n";
  return lines;
}

}  // namespace sluice
