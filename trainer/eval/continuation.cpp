// trainer/eval/continuation.cpp -- documents into micro-batches, sums out of them.
#include "trainer/eval/continuation.h"

#include <algorithm>

namespace sluice {

Continuation make_continuation(Encoder& encoder, int32_t end_of_text, std::string context,
                               std::string continuation, const std::string& name) {
  const size_t kept = context.find_last_not_of(" \t\r\n");
  const size_t cut = kept == std::string::npos ? 0 : kept + 1;
  continuation.insert(0, context, cut);
  context.resize(cut);
  Continuation c{.tokens = {end_of_text}, .begin = 0, .name = name};
  const std::vector<int32_t> whole = encoder.encode(context + continuation);
  c.begin = int64_t(encoder.encode(context).size()) + 1;
  c.tokens.insert(c.tokens.end(), whole.begin(), whole.end());
  SLUICE_CHECK(c.begin < int64_t(c.tokens.size()), name, ": no token is left for \"", continuation,
               "\" after \"", context, "\"");
  return c;
}

namespace {

// The last token is only ever a target.
int64_t rows_of(const Continuation& c) {
  return int64_t(c.tokens.size()) - 1;
}

// [first, last) of the list for each micro-batch.
struct Range {
  size_t first, last;
};
std::vector<Range> pack(std::span<const Continuation> list, int64_t N) {
  std::vector<Range> batches;
  int64_t used = N;
  for (size_t i = 0; i < list.size(); ++i) {
    if (used + rows_of(list[i]) > N) {
      batches.push_back({i, i});
      used = 0;
    }
    used += rows_of(list[i]);
    batches.back().last = i + 1;
  }
  return batches;
}

void load(std::span<const Continuation> documents, MicroBatch& batch) {
  int32_t *tokens = batch.tokens.as<int32_t>(), *targets = batch.targets.as<int32_t>();
  const auto N = size_t(batch.tokens.dim(0));
  std::fill_n(tokens, N, documents.front().tokens.front());
  std::fill_n(targets, N, kNoTarget);
  std::vector<int32_t> ends;
  int64_t at = 0;
  batch.valid_tokens = 0;
  for (const Continuation& c : documents) {
    const int64_t n = rows_of(c);
    std::copy_n(c.tokens.begin(), n, tokens + at);
    std::copy(c.tokens.begin() + c.begin, c.tokens.end(), targets + at + c.begin - 1);
    batch.valid_tokens += n + 1 - c.begin;
    ends.push_back(int32_t(at += n));
  }
  if (size_t(at) < N) ends.push_back(int32_t(N));
  set_documents(ends, batch);
}

ContinuationScore sum(const Scores& s, const int32_t* targets, int64_t begin, int64_t end) {
  ContinuationScore out;
  for (int64_t n = begin; n < end; ++n) {
    if (targets[n] == kNoTarget) continue;
    out.log_likelihood -= s.nll[size_t(n)];
    out.predicted += s.predicted[size_t(n)] == targets[n];
    ++out.tokens;
  }
  return out;
}

}  // namespace

std::vector<ContinuationScore> score_continuations(TokenScorer& scorer,
                                                   std::span<const Continuation> list,
                                                   int64_t batch_tokens, const Report& report) {
  int64_t total = 0;
  for (const Continuation& c : list) {
    SLUICE_CHECK(c.begin > 0 && c.begin <= rows_of(c), c.name, ": tokens ", c.begin, " to ",
                 rows_of(c));
    if (rows_of(c) > batch_tokens)
      throw Error(cat(c.name, ": has ", rows_of(c), " tokens, a batch ", batch_tokens,
                      ": needs --batch-tokens ", rows_of(c), " or more"));
    total += rows_of(c);
  }
  const int64_t N = std::min(total, batch_tokens);
  const std::vector<Range> batches = pack(list, N);
  size_t most = 0;
  for (const Range& r : batches) most = std::max(most, r.last - r.first);
  MicroBatchBuffer buffer(N, int64_t(most) + 1);  // and one of padding
  MicroBatch& batch = buffer.batch();
  if (!batches.empty()) scorer.plan(batch);
  std::vector<ContinuationScore> out;
  for (const Range& r : batches) {
    const auto documents = list.subspan(r.first, r.last - r.first);
    load(documents, batch);
    const Scores scores = scorer.score(batch);
    int64_t at = 0;
    for (const Continuation& c : documents) {
      out.push_back(sum(scores, batch.targets.as<int32_t>(), at, at + rows_of(c)));
      at += rows_of(c);
    }
    report(int64_t(r.last), int64_t(list.size()));
  }
  return out;
}

}  // namespace sluice
