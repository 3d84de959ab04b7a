// tests/trainer/eval_choice_test.cpp -- multiple choice: questions, what is chosen, the oracle.
#include <gtest/gtest.h>

#include "tests/support/folder.h"
#include "tests/support/message.h"
#include "tests/trainer/eval_scorers.h"
#include "trainer/eval/multiple_choice.h"

namespace sluice {
namespace {

using test::DocumentScorer;
using test::error_of;
using test::put_bytes;

class EvalChoice : public testing::Test {
 protected:
  std::vector<JsonLine> lines(const std::string& text) const {
    put_bytes(folder_ / "q.jsonl", text);
    return read_json_lines(folder_ / "q.jsonl", std::nullopt);
  }
  std::string error(const std::string& text, const ChoiceOptions& options = {}) const {
    return error_of([&] { make_questions(lines(text), options); });
  }
  void expect_error(const std::string& text, const std::string& part,
                    const ChoiceOptions& options = {}) const {
    const std::string e = error(text, options);
    EXPECT_NE(e.find(part), std::string::npos) << e;
  }

  test::Folder folder_;
  const Tokenizer tokenizer_{BpeTraining{}, "gpt2"};
};

TEST_F(EvalChoice, TemplatesMakeQuestions) {
  const auto q = make_questions(
      lines("{\"question\":\"Q?\",\"choices\":[\"x\",\"y z\"],\"answer\":1}\n\n"
            "{\"question\":\"R\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":\"A\",\"n\":1.50}\n"),
      {});
  ASSERT_EQ(q.size(), 2U);
  EXPECT_EQ(q[0].context, "Q?\nAnswer:");
  EXPECT_EQ(q[0].continuations, (std::vector<std::string>{" x", " y z"}));
  EXPECT_EQ(q[0].answer, 1);
  EXPECT_EQ(q[1].answer, 0);
  EXPECT_NE(q[1].where.find("q.jsonl:3"), std::string::npos);
  const auto letters = make_questions(lines("{\"s\":\"Q {?}\",\"o\":[\"x\",\"y\"],\"k\":\"B\"}"),
                                      {.prompt = "{{{s}}}\\n{choices}Answer:",
                                       .choice = " {letter}",
                                       .choices_field = "o",
                                       .answer_field = "k"});
  EXPECT_EQ(letters[0].context, "{Q {?}}\nA. x\nB. y\nAnswer:");
  EXPECT_EQ(letters[0].continuations, (std::vector<std::string>{" A", " B"}));
  EXPECT_EQ(letters[0].answer, 1);
}

TEST_F(EvalChoice, SaysWhatIsWrongWithALine) {
  const std::string good = "{\"question\":\"Q\",\"choices\":[\"x\",\"y\"],\"answer\":1}\n";
  expect_error(good + "{\"query\":\"Q\",\"choices\":[\"x\",\"y\"],\"answer\":1}",
               "q.jsonl:2: no field \"question\", there are: answer, choice");
  expect_error(good + "{\"question\":\"Q\",\"answer\":1}", "q.jsonl:2: no field \"choices\"");
  for (const char* bad : {"2", "-1", "\"C\"", "0.5", "\"AB\"", "null"})
    expect_error(good + "{\"question\":\"Q\",\"choices\":[\"x\",\"y\"],\"answer\":" + bad + "}",
                 std::string("q.jsonl:2: answer: expected 0 to 1 or A to B, got ") + bad);
  for (const char* bad : {"\"x\"", "[\"x\"]", "[\"x\",3]", "[\"x\",\"\"]"})
    expect_error(std::string("{\"question\":\"Q\",\"choices\":") + bad + ",\"answer\":0}",
                 "q.jsonl:1: choices: expected a list of 2 to 26 texts");
  expect_error(good + "oops", "q.jsonl:2: expected a JSON object, got \"oops\"");
  expect_error("\n", "q.jsonl: no JSON lines");
  expect_error("{\"question\":[],\"choices\":[\"x\",\"y\"],\"answer\":1}",
               "question: expected a string or a number, got []");
  expect_error(good, "a { without its }", {.prompt = "{question"});
  expect_error(good, "a } without its {", {.prompt = "question}"});
}

// A loss of 1 a token makes the shortest likeliest; a loss of 10 for each z makes bytes matter.
TEST_F(EvalChoice, ChoosesByLikelihoodAndByLikelihoodAByte) {
  const auto questions = make_questions(
      lines("{\"question\":\"Q\",\"choices\":[\"abcd\",\"zz\",\"ab\",\"ab\"],\"answer\":2}\n"
            "{\"question\":\"Q\",\"choices\":[\"zab\",\"zbcdefgh\"],\"answer\":1}\n"),
      {});
  DocumentScorer scorer([](const std::vector<int32_t>& d, size_t place) {
    return DocumentScorer::Token{d[place + 1] == 'z' ? 10.0 : 1.0, -1};
  });
  const auto answers = answer_questions(scorer, tokenizer_, questions, 60, test::no_report);
  // One blank before each choice: it costs 1 as well.
  EXPECT_EQ(answers[0].log_likelihoods, (std::vector<double>{-5, -21, -3, -3}));
  EXPECT_EQ(answers[0].chosen, 2) << "the first of equals";
  EXPECT_EQ(answers[0].chosen_normalised, 0) << "-5/4 against -3/2";
  EXPECT_EQ(answers[1].log_likelihoods, (std::vector<double>{-13, -18}));
  EXPECT_EQ(answers[1].chosen, 0);
  EXPECT_EQ(answers[1].chosen_normalised, 1) << "-18/8 against -13/3";
  const ChoiceResult r = grade(questions, answers);
  EXPECT_EQ(r.plain.right, 1);
  EXPECT_EQ(r.normalised.right, 1);
  EXPECT_EQ(r.plain.total, 2);
  EXPECT_DOUBLE_EQ(r.chance, (0.25 + 0.5) / 2);
  EXPECT_DOUBLE_EQ(r.plain.standard_error(), std::sqrt(0.25 / 1));
  const std::string text = answer_lines(questions, answers);
  EXPECT_EQ(text.substr(0, text.find('\n')),
            "{\"index\":0,\"log_likelihoods\":[-5.0,-21.0,-3.0,-3.0],\"chosen\":2,"
            "\"chosen_normalised\":0,\"correct\":2}");
}

// What is scored is a letter: how long the choice behind it is does not matter.
TEST_F(EvalChoice, LettersAreAllOfOneLength) {
  const auto questions = make_questions(
      lines("{\"question\":\"Q\",\"choices\":[\"a\",\"quite a long text\"],\"answer\":0}"),
      {.choice = " {letter}"});
  DocumentScorer scorer([](const std::vector<int32_t>& d, size_t place) {
    return DocumentScorer::Token{d[place + 1] == 'B' ? 4.0 : 1.0, -1};
  });
  const auto answers = answer_questions(scorer, tokenizer_, questions, 60, test::no_report);
  EXPECT_EQ(answers[0].chosen, 0);
  EXPECT_EQ(answers[0].chosen_normalised, 0);
}

TEST_F(EvalChoice, AScoreThatIsNoNumberIsAnError) {
  const auto questions =
      make_questions(lines("{\"question\":\"Q\",\"choices\":[\"a\",\"b\"],\"answer\":0}"), {});
  DocumentScorer scorer([](const std::vector<int32_t>&, size_t) {
    return DocumentScorer::Token{std::nan(""), -1};
  });
  const std::string e =
      error_of([&] { answer_questions(scorer, tokenizer_, questions, 60, test::no_report); });
  EXPECT_NE(e.find("q.jsonl:1: \" a\" has a score of"), std::string::npos) << e;
}

// -11/1 against -21/2; with the blank, which is a token, it would be -11/2 against -21/3.
TEST_F(EvalChoice, TheBytesAreTheChoices) {
  const auto questions =
      make_questions(lines("{\"question\":\"Q\",\"choices\":[\"z\",\"zz\"],\"answer\":1}\n"), {});
  DocumentScorer scorer([](const std::vector<int32_t>& d, size_t place) {
    return DocumentScorer::Token{d[place + 1] == 'z' ? 10.0 : 1.0, -1};
  });
  const auto answers = answer_questions(scorer, tokenizer_, questions, 60, test::no_report);
  EXPECT_EQ(answers[0].chosen, 0);
  EXPECT_EQ(answers[0].chosen_normalised, 1);
}

TEST_F(EvalChoice, ResultHasBothShares) {
  const auto json = to_json(ChoiceResult{.plain = {1, 4}, .normalised = {2, 4}, .chance = 0.5});
  EXPECT_EQ(json["acc"], 0.25);
  EXPECT_EQ(json["acc_stderr"], 0.25);
  EXPECT_EQ(json["acc_norm"], 0.5);
  EXPECT_EQ(json["acc_norm_stderr"], std::sqrt(0.25 / 3));
}

TEST_F(EvalChoice, ALimitIsOfLines) {
  put_bytes(folder_ / "q.jsonl", "{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}\n");
  EXPECT_EQ(read_json_lines(folder_ / "q.jsonl", 2).size(), 2U);
}

TEST_F(EvalChoice, StandardErrorOfAShare) {
  EXPECT_DOUBLE_EQ((Accuracy{25, 101}.standard_error()), std::sqrt(25.0 / 101 * 76.0 / 101 / 100));
  EXPECT_EQ((Accuracy{1, 1}.standard_error()), 0);
}

std::vector<ChoiceAnswer> ask_oracle(const std::vector<ChoiceQuestion>& questions,
                                     const Tokenizer& tokenizer, bool lie) {
  Encoder encoder(tokenizer);
  std::set<std::vector<int32_t>> right;
  for (const ChoiceQuestion& q : questions) {
    auto told = size_t(q.answer);
    while (lie && q.choices[told] == q.choices[size_t(q.answer)])  // some choices are there twice
      told = (told + 1) % q.choices.size();
    right.insert(
        make_continuation(encoder, tokenizer.end_of_text(), q.context, q.continuations[told], "")
            .tokens);
  }
  DocumentScorer oracle = test::oracle(right, tokenizer.vocab_size());
  return answer_questions(oracle, tokenizer, questions, 8192, test::no_report);
}

// The whole of a real task through reading, templates, tokens, packing and grading, with a model
// whose logits are the answers: all right. One that knows the wrong ones: none.
TEST_F(EvalChoice, PlantedOracleIsAlwaysRight) {
  const char* data = std::getenv("SLUICE_DATA");
  const std::string path = std::string(data ? data : "") + "/eval/mmlu_stem.jsonl";
  if (!data || !std::filesystem::exists(path))
    GTEST_SKIP() << "NOT TESTED: SLUICE_DATA names no folder with eval/mmlu_stem.jsonl";
  const auto questions = make_questions(read_json_lines(path, std::nullopt), {});
  const ChoiceResult r = grade(questions, ask_oracle(questions, tokenizer_, false));
  std::cout << path << ", planted oracle:\n" << to_string(r);
  EXPECT_EQ(r.plain.right, r.plain.total);
  EXPECT_EQ(r.normalised.right, r.normalised.total);
  const ChoiceResult lies = grade(questions, ask_oracle(questions, tokenizer_, true));
  std::cout << "planted liar:\n" << to_string(lies);
  EXPECT_EQ(lies.plain.right, 0);
}

TEST_F(EvalChoice, PlantedOracleOnAFewQuestions) {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += cat("{\"question\":\"Number ", i, "?\",\"choices\":[\"", i, "\",\"", i + 1, "\",\"",
                2 * i, " or so\"],\"answer\":", i % 3, "}\n");
  const auto questions = make_questions(lines(text), {});
  EXPECT_EQ(grade(questions, ask_oracle(questions, tokenizer_, false)).plain.right, 40);
  EXPECT_EQ(grade(questions, ask_oracle(questions, tokenizer_, true)).plain.right, 0);
}

}  // namespace
}  // namespace sluice
