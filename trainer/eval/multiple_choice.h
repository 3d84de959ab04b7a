// trainer/eval/multiple_choice.h -- the choice that is likeliest after its question.
//
//   ll(c) = sum over the tokens of c of log p(token | question, tokens before)
//   chosen: argmax ll(c);   chosen_normalised: argmax ll(c) / bytes(c);   the first of equals
// bytes(c): of what is scored, without leading blanks
//
// As lm-evaluation-harness's acc and acc_norm (which divides by characters): no letter is asked
// for unless the templates say so.
#pragma once

#include "trainer/eval/accuracy.h"
#include "trainer/eval/continuation.h"
#include "trainer/eval/json_lines.h"

namespace sluice {

struct ChoiceOptions {
  std::string prompt = "{question}\nAnswer:";
  std::string choice = " {choice}";  // what is scored
  std::string choices_field = "choices", answer_field = "answer";
};

struct ChoiceQuestion {
  std::string context;
  std::vector<std::string> choices;        // as the file has them
  std::vector<std::string> continuations;  // one a choice, what is scored
  int64_t answer = 0;
  std::string where;
};

// In the templates, beside the fields: {choices} is all of them, "A. ...\n" a line; in `choice`,
// {choice} is one of them and {letter} its letter. The answer is an index from 0 or a letter.
std::vector<ChoiceQuestion> make_questions(const std::vector<JsonLine>& lines,
                                           const ChoiceOptions& options);

struct ChoiceAnswer {
  std::vector<double> log_likelihoods;
  int64_t chosen = 0, chosen_normalised = 0;
};

std::vector<ChoiceAnswer> answer_questions(TokenScorer& scorer, const Tokenizer& tokenizer,
                                           const std::vector<ChoiceQuestion>& questions,
                                           int64_t batch_tokens, const Report& report);

struct ChoiceResult {
  Accuracy plain, normalised;
  double chance = 0;  // mean of 1 / choices
};
ChoiceResult grade(const std::vector<ChoiceQuestion>& questions,
                   const std::vector<ChoiceAnswer>& answers);

nlohmann::ordered_json to_json(const ChoiceResult& r);
std::string to_string(const ChoiceResult& r);  // a table
// One JSON line a question: index, log_likelihoods, chosen, chosen_normalised, correct.
std::string answer_lines(const std::vector<ChoiceQuestion>& questions,
                         const std::vector<ChoiceAnswer>& answers);

}  // namespace sluice
