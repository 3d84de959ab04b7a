// tests/trainer/eval_perplexity_test.cpp -- a checkpoint's loss is the one that its run printed.
#include <nlohmann/json.hpp>

#include "tests/support/message.h"
#include "tests/support/tiny_run.h"
#include "tests/trainer/eval_scorers.h"
#include "trainer/eval/perplexity.h"
#include "trainer/eval/subject.h"

namespace sluice {
namespace {

class EvalPerplexity : public test::TinyRun {
 protected:
  // The last validation's numbers.
  static nlohmann::json validated(const Config& c) {
    std::ifstream in(c.run.dir + "/metrics.jsonl");
    nlohmann::json last;
    for (std::string line; std::getline(in, line);) {
      auto event = nlohmann::json::parse(line);
      if (event["event"] == "valid.v") last = event;
    }
    return last;
  }
};

TEST_F(EvalPerplexity, DigitsAreThoseOfTheLoop) {
  const Config c = config("run");
  run_to_the_end(c);
  const nlohmann::json loop = validated(c);
  const Subject s = open_subject(c.run.dir, "");
  EXPECT_EQ(s.folder, c.run.dir + "/eval");
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    ModelScorer scorer(s.model, pool, Mode::run);
    const ValidationSet set(s.data.validation.at("v"), s.data.seq_len_tokens,
                            s.model.config.train.micro_batch_tokens);
    const SetLoss loss = score_set(scorer, set, test::no_report);
    EXPECT_EQ(loss.loss(), loop["loss"].get<double>());
    EXPECT_EQ(*loss.bits_per_byte(), loop["bits_per_byte"].get<double>());
    const std::string path = save_result(s, "p", to_json({{"v", loss}}));
    const auto saved = nlohmann::json::parse(read(path));
    EXPECT_EQ(path, c.run.dir + "/eval/p.json");
    EXPECT_EQ(saved["kind"], "perplexity");
    EXPECT_EQ(saved["checkpoint_step"], 24);
    EXPECT_EQ(saved["sets"]["v"]["loss"].get<double>(), loss.loss());
  }
  // An older checkpoint of the run by its own folder.
  const Subject older = open_subject(c.run.dir + "/checkpoints/step-00000014", "");
  EXPECT_EQ(older.folder, c.run.dir + "/eval");
  EXPECT_EQ(older.model.checkpoint.step, 14);
}

TEST_F(EvalPerplexity, TokenizerMustBeTheShards) {
  const Config c = config("run");
  run_to_the_end(c, [](Trainer& t) { return t.train_step(), t.save(), ExitCode::done; });
  const Subject s = open_subject(c.run.dir, "");
  EXPECT_EQ(load_tokenizer(s).fingerprint(), tokenizer_.fingerprint());
  BpeTraining other;
  other.merges = {{'a', 'b'}};
  Tokenizer(other, "gpt2").save(dir_ / "tokenizer.json");
  const std::string error = test::error_of([&] { load_tokenizer(s); });
  EXPECT_NE(error.find("train.h5 was encoded with tokenizer " + tokenizer_.fingerprint()),
            std::string::npos)
      << error;
  std::filesystem::remove(dir_ / "train.h5");
  EXPECT_NE(test::error_of([&] { load_tokenizer(s); }).find("has 258 tokens, the model 257"),
            std::string::npos);
  std::filesystem::remove(dir_ / "tokenizer.json");
  EXPECT_NE(test::error_of([&] { load_tokenizer(s); }).find("tokenizer.json"), std::string::npos);
}

TEST_F(EvalPerplexity, ErrorsHaveExitCodes) {
  try {
    open_subject(dir_ / "nowhere", "");
    ADD_FAILURE() << "no error";
  } catch (const ExitError& e) {
    EXPECT_EQ(e.code, ExitCode::checkpoint);
  }
  const Config c = config("run");
  run_to_the_end(c, [](Trainer& t) { return t.train_step(), t.save(), ExitCode::done; });
  std::filesystem::rename(c.run.dir + "/checkpoints/step-00000001", dir_ / "copy");
  EXPECT_EQ(open_subject(dir_ / "copy", dir_ / "out").folder, dir_ / "out");
  try {
    open_subject(dir_ / "copy", "");
    ADD_FAILURE() << "no error";
  } catch (const ExitError& e) {
    EXPECT_EQ(e.code, ExitCode::config);
    EXPECT_NE(std::string(e.what()).find("--out FOLDER"), std::string::npos) << e.what();
  }
}

// Two nats a token, whatever is padding.
TEST_F(EvalPerplexity, OnlyTokensCount) {
  test::DocumentScorer scorer([](const std::vector<int32_t>&, size_t) {
    return test::DocumentScorer::Token{2, -1};
  });
  const ValidationSet set(dir_ / "valid.h5", 96, 96 * 2);
  const SetLoss s = score_set(scorer, set, test::no_report);
  EXPECT_NE(s.tokens % (96 * 2), 0) << "nothing is padded";
  EXPECT_EQ(s.loss(), 2);
  EXPECT_DOUBLE_EQ(*s.bits_per_byte(), 2 * double(s.tokens) / std::log(2) / double(*s.text_bytes));
  EXPECT_EQ(to_json({{"v", s}})["sets"]["v"]["perplexity"], std::exp(2.0));
  EXPECT_NE(to_string({{"v", s}}).find("2.0000      7.3891"), std::string::npos);
}

}  // namespace
}  // namespace sluice
