// tests/trainer/eval_scorers.h -- what stands in for a model where a test knows the answers.
#pragma once

#include <cmath>
#include <functional>
#include <set>
#include <vector>

#include "trainer/eval/continuation.h"

namespace sluice::test {

// Scores of each document [inputs and the target of its last one] and place by a function.
class DocumentScorer : public TokenScorer {
 public:
  struct Token {
    double nll;
    int32_t predicted;
  };
  // `document` has all its tokens, the one at `place` + 1 is the target.
  using Score = std::function<Token(const std::vector<int32_t>& document, size_t place)>;
  explicit DocumentScorer(Score score) : score_(std::move(score)) {}

  void plan(const MicroBatch& shape) override { planned_tokens = shape.tokens.dim(0); }
  Scores score(const MicroBatch& batch) override {
    ++calls;
    const int64_t N = batch.tokens.dim(0);
    EXPECT_EQ(N, planned_tokens);
    const int32_t *tokens = batch.tokens.as<int32_t>(), *targets = batch.targets.as<int32_t>(),
                  *cu = batch.cu_seqlens.as<int32_t>();
    nll_.assign(size_t(N), 0);
    predicted_.assign(size_t(N), -1);
    for (int64_t d = 0; d + 1 < batch.cu_seqlens.dim(0); ++d) {
      std::vector<int32_t> document(tokens + cu[d], tokens + cu[d + 1]);
      if (document.empty()) continue;
      document.push_back(targets[cu[d + 1] - 1]);
      for (int32_t n = cu[d]; n < cu[d + 1]; ++n) {
        if (targets[n] == kNoTarget) continue;
        EXPECT_EQ(targets[n], document[size_t(n - cu[d]) + 1]);
        const Token t = score_(document, size_t(n - cu[d]));
        nll_[size_t(n)] = t.nll;
        predicted_[size_t(n)] = t.predicted;
      }
    }
    double nats = 0;
    for (const double x : nll_) nats += x;
    return {nats, nll_, predicted_};
  }

  int64_t planned_tokens = 0, calls = 0;

 private:
  Score score_;
  std::vector<double> nll_;
  std::vector<int32_t> predicted_;
};

// A model whose logits were replaced by the answers: of these documents each token has probability
// 1, of all others 1 / vocabulary.
inline DocumentScorer oracle(std::set<std::vector<int32_t>> right, int64_t vocabulary) {
  return DocumentScorer([right = std::move(right), vocabulary](const auto& document, size_t place) {
    if (right.count(document)) return DocumentScorer::Token{0, document[place + 1]};
    return DocumentScorer::Token{std::log(double(vocabulary)), -1};
  });
}

inline void no_report(int64_t, int64_t) {}

}  // namespace sluice::test
