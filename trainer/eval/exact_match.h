// trainer/eval/exact_match.h -- greedy texts whose answer is compared with the right one.
#pragma once

#include "trainer/eval/accuracy.h"
#include "trainer/eval/answer_rule.h"
#include "trainer/eval/continuation.h"
#include "trainer/eval/json_lines.h"

namespace sluice {

struct MatchExample {
  std::string prompt, answer;  // answer: normalised
  std::string where;
};

// `prompt` is a template (json_lines.h). If the rule is numeric, it finds the answer in the
// field, too: "... #### 18" is 18.
std::vector<MatchExample> make_examples(const std::vector<JsonLine>& lines,
                                        const std::string& prompt, const std::string& answer_field,
                                        const AnswerRule& rule);

// Texts that continue prompts, in order: a model, or in tests something that knows the answers.
using TextGenerator =
    std::function<std::vector<std::string>(const std::vector<std::string>& prompts)>;

struct MatchAnswer {
  std::string text;
  std::optional<std::string> answer;  // normalised; none: the rule found nothing
  bool right = false;
};
std::vector<MatchAnswer> answer_examples(const TextGenerator& generate,
                                         const std::vector<MatchExample>& examples,
                                         const AnswerRule& rule);

struct MatchResult {
  Accuracy exact;
  int64_t without_answer = 0;
};
MatchResult grade(const std::vector<MatchAnswer>& answers);
nlohmann::ordered_json to_json(const MatchResult& r);
std::string to_string(const MatchResult& r);
// One JSON line an example: index, text, answer (null: none), correct, right.
std::string answer_lines(const std::vector<MatchExample>& examples,
                         const std::vector<MatchAnswer>& answers);

// Greedy, to the bit whatever else is generated at the same time.
struct GreedyOptions {
  int64_t max_new_tokens = 256;
  int64_t slots = 16;  // at a time
  std::vector<std::string> stop;
};
TextGenerator greedy_generator(const LoadedModel& model, ThreadPool& threads,
                               const Tokenizer& tokenizer, const GreedyOptions& options,
                               const Report& report);

}  // namespace sluice
