// tests/trainer/eval_match_test.cpp -- answers in texts, and greedy texts of a model.
#include <gtest/gtest.h>

#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"
#include "trainer/eval/exact_match.h"

namespace sluice {
namespace {

using test::error_of;

std::string found(const AnswerRule& rule, const std::string& text) {
  return rule.extract(text).value_or("nothing");
}

TEST(EvalMatch, LastNumber) {
  const AnswerRule rule = AnswerRule::last_number();
  EXPECT_EQ(found(rule, "She has 3 and 4, so 12 - 5 = 7 apples."), "7");
  EXPECT_EQ(found(rule, "16 - 3 - 4 = <<16-3-4=9>>9 eggs.\n#### 18"), "18");
  EXPECT_EQ(found(rule, "it is $1,234.50!"), "1,234.50");
  EXPECT_EQ(found(rule, "below: -3"), "-3");
  EXPECT_EQ(found(rule, "16-3"), "3") << "a difference, no negative number";
  EXPECT_EQ(found(rule, "version 2.50."), "2.50");
  EXPECT_EQ(found(rule, "no number"), "nothing");
  EXPECT_EQ(found(rule, ""), "nothing");
  EXPECT_EQ(found(rule, "\xff\xfe 12 \xe2\x82"), "12") << "invalid UTF-8 is passed over";
}

TEST(EvalMatch, LineAndRegex) {
  EXPECT_EQ(found(AnswerRule::line(), "\n  \n  Paris, France \nor not"), "Paris, France");
  EXPECT_EQ(found(AnswerRule::line(), " \n"), "nothing");
  EXPECT_EQ(found(AnswerRule::regex("answer is (\\w+)"), "the answer is B, answer is C"), "B");
  EXPECT_EQ(found(AnswerRule::regex("[A-D]"), "xxD"), "D");
  EXPECT_EQ(found(AnswerRule::regex("a*"), "b"), "") << "an empty match is one";
  const std::string error = error_of([] { AnswerRule::regex("a(b"); });
  EXPECT_NE(error.find("the pattern \"a(b\": missing closing parenthesis, at character 3"),
            std::string::npos)
      << error;
}

TEST(EvalMatch, SameAnswersAreTheSameText) {
  for (const char* same : {"145", "145.0", " 145 ", "+145", "0145", "$145.00", "145."})
    EXPECT_EQ(normalised(same), "145") << same;
  EXPECT_EQ(normalised("1,200.50"), "1200.5");
  EXPECT_EQ(normalised("-0.0"), "0");
  EXPECT_EQ(normalised(".5"), "0.5");
  EXPECT_EQ(normalised("100"), "100") << "zeros before the point say something";
  EXPECT_EQ(normalised("-7"), "-7");
  EXPECT_EQ(normalised("  The\n Cat. "), "the cat");
  EXPECT_EQ(normalised("3-4"), "3-4");
  EXPECT_EQ(normalised("1.2.3"), "1.2.3");
  EXPECT_EQ(normalised("$"), "$");
  EXPECT_EQ(normalised(""), "");
}

class EvalMatchFile : public testing::Test {
 protected:
  std::vector<JsonLine> lines(const std::string& text) const {
    test::put_bytes(folder_ / "q.jsonl", text);
    return read_json_lines(folder_ / "q.jsonl", std::nullopt);
  }
  test::Folder folder_;
};

TEST_F(EvalMatchFile, GradesWhatAGeneratorWrites) {
  const AnswerRule rule = AnswerRule::last_number();
  const auto examples =
      make_examples(lines("{\"Body\":\"B.\",\"Q\":\"How?\",\"A\":145.0}\n"
                          "{\"Body\":\"C.\",\"Q\":\"Why?\",\"A\":\"x\\n#### 1,000\"}\n"
                          "{\"Body\":\"D.\",\"Q\":\"Who?\",\"A\":7}\n"
                          "{\"Body\":\"E.\",\"Q\":\"Whom?\",\"A\":-7}\n"),
                    "{Body} {Q}\\nAnswer:", "A", rule);
  EXPECT_EQ(examples[1].prompt, "C. Why?\nAnswer:");
  EXPECT_EQ(examples[1].answer, "1000");
  const TextGenerator written = [&](const std::vector<std::string>& prompts) {
    EXPECT_EQ(prompts.size(), 4U);
    EXPECT_EQ(prompts[0], "B. How?\nAnswer:");
    return std::vector<std::string>{" first 3, then 145", " $1000.", " seven", " 7"};
  };
  const auto answers = answer_examples(written, examples, rule);
  const MatchResult r = grade(answers);
  EXPECT_EQ(r.exact.right, 2);
  EXPECT_EQ(r.exact.total, 4);
  EXPECT_EQ(r.without_answer, 1);
  const std::string out = answer_lines(examples, answers);
  EXPECT_NE(out.find("{\"index\":2,\"text\":\" seven\",\"answer\":null,\"correct\":\"7\",\"right\":"
                     "false}"),
            std::string::npos)
      << out;
  EXPECT_NE(error_of([&] {
              make_examples(lines("{\"q\":\"x\",\"A\":\"none\"}"), "{q}", "A", rule);
            }).find("q.jsonl:1: A: expected a number, got \"none\""),
            std::string::npos);
}

TEST_F(EvalMatchFile, AnAnswerThatIsANumberIsThatNumber) {
  const auto examples =
      make_examples(lines("{\"A\":0.00001}\n{\"A\":1e20}\n{\"A\":-3}\n{\"A\":2.50}\n"), "?", "A",
                    AnswerRule::last_number());
  EXPECT_EQ(examples[0].answer, "0.00001");
  EXPECT_EQ(examples[1].answer, "100000000000000000000");
  EXPECT_EQ(examples[2].answer, "-3");
  EXPECT_EQ(examples[3].answer, "2.5");
}

// The oracle: a generator that writes the file's own answers, around them what models write.
TEST_F(EvalMatchFile, PlantedOracleIsAlwaysRight) {
  const char* data = std::getenv("SLUICE_DATA");
  struct Task {
    const char *file, *prompt, *answer;
  };
  int tasks = 0;
  for (const Task& t : {Task{"/eval/svamp.jsonl", "{Body} {Question}\\nAnswer:", "Answer"},
                        Task{"/eval/multiarith.jsonl", "{input}\\nAnswer:", "target"},
                        Task{"/gsm8k/test.jsonl", "{question}\\nAnswer:", "answer"}}) {
    const std::string path = std::string(data ? data : "") + t.file;
    if (!data || !std::filesystem::exists(path)) continue;
    ++tasks;
    const AnswerRule rule = AnswerRule::last_number();
    const auto all = read_json_lines(path, std::nullopt);
    const auto examples = make_examples(all, t.prompt, t.answer, rule);
    const TextGenerator oracle = [&](const std::vector<std::string>& prompts) {
      std::vector<std::string> texts;
      for (size_t i = 0; i < prompts.size(); ++i)
        texts.push_back(" Let us see: 1 and 2 ... so it is " + text_of(all[i], t.answer) + ".");
      return texts;
    };
    const MatchResult r = grade(answer_examples(oracle, examples, rule));
    std::cout << path << ", planted oracle: " << to_string(r);
    EXPECT_EQ(r.exact.right, r.exact.total);
  }
  if (tasks == 0) GTEST_SKIP() << "NOT TESTED: SLUICE_DATA names no folder with eval/svamp.jsonl";
}

// The same texts with any number of slots, in the prompts' order, cut before the stop string.
TEST(EvalMatch, GreedyTextsDoNotDependOnSlots) {
  LoadedModel model{.checkpoint = {}, .skipped = {}, .config = {}, .params = {}, .lm = {}};
  const Tokenizer tokenizer{BpeTraining{}, "gpt2"};
  LmConfig config = test::tiny_config();
  config.vocab_size = tokenizer.vocab_size();
  model.params = std::make_unique<PlainStore>(DType::f32);
  model.lm = std::make_unique<Lm>(config, *model.params);
  model.params->allocate();
  initialize(*model.params, 1);
  ThreadPool threads(2);
  const std::vector<std::string> prompts{"one", "two words", "", "three more words"};
  std::vector<std::vector<std::string>> texts;
  for (const int64_t slots : {1, 3, 64}) {
    int64_t last = 0;
    texts.push_back(greedy_generator(model, threads, tokenizer,
                                     {.max_new_tokens = 12, .slots = slots, .stop = {}},
                                     [&](int64_t done, int64_t) { last = done; })(prompts));
    EXPECT_EQ(last, 4);
  }
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
  for (const std::string& t : texts[0]) EXPECT_FALSE(t.empty());
  const auto greedy = [&](const GreedyOptions& options) {
    return greedy_generator(model, threads, tokenizer, options, [](int64_t, int64_t) {})(prompts);
  };
  const std::string stop = texts[0][0].substr(texts[0][0].size() / 2, 1);
  EXPECT_EQ(greedy({.max_new_tokens = 12, .slots = 3, .stop = {stop}})[0],
            texts[0][0].substr(0, texts[0][0].find(stop)));
}

}  // namespace
}  // namespace sluice
