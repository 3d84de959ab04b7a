// model/generate/generator.cpp -- prefill and decode are one path, with pieces of any length.
#include "model/generate/generator.h"

#include <algorithm>
#include <cstring>

#include "kernels/tensor/rng.h"
#include "model/generate/sample.h"

namespace sluice {

Generator::Generator(const Context& ctx, ParamStore& params, const Lm& lm, DType dtype,
                     int64_t max_tokens, int64_t piece_tokens)
    : ctx_(ctx),
      params_(params),
      lm_(lm),
      max_tokens_(max_tokens),
      piece_tokens_(std::min(piece_tokens, max_tokens)),
      cache_(lm.make_cache(dtype, ctx.device, 1, max_tokens)),
      arena_(ctx.device, plan(piece_tokens_)),
      tokens_(DType::i32, {piece_tokens_}),
      cu_seqlens_(DType::i32, {2}),
      logits_(dtype, {*lm.config().vocab_size}) {
  ctx_.arena = &arena_;
}

// Bytes of the largest piece against a full cache. Smaller pieces take smaller ranges, which may
// leave gaps that the plan has not seen: a quarter on top covers them.
int64_t Generator::plan(int64_t piece_tokens) {
  Arena arena = Arena::plan(ctx_.device);
  Context ctx = ctx_;
  ctx.mode = Mode::plan;
  ctx.arena = &arena;
  Tape tape(ctx, params_, Tape::Mode::infer);
  const int64_t row = piece_tokens - 1;
  lm_.logits(tape,
             {.tokens = make_tensor(nullptr, DType::i32, ctx.device, {piece_tokens}),
              .targets = {},
              .loss_scale = {},
              .sequences = {make_tensor(nullptr, DType::i32, ctx.device, {2}), {}}},
             {&row, 1}, &cache_);
  return arena.peak() + arena.peak() / 4;
}

Tensor Generator::feed(std::span<const int32_t> tokens) {
  SLUICE_CHECK(!tokens.empty(), "no tokens");
  SLUICE_CHECK(length_ + int64_t(tokens.size()) <= max_tokens_, "the sequence would have ",
               length_ + int64_t(tokens.size()), " tokens, room was made for ", max_tokens_);
  Tensor logits;
  while (!tokens.empty()) {
    const size_t n = std::min(tokens.size(), size_t(piece_tokens_));
    logits = feed_piece(tokens.first(n));
    tokens = tokens.subspan(n);
  }
  return logits;
}

Tensor Generator::feed_piece(std::span<const int32_t> tokens) {
  const int64_t N = int64_t(tokens.size()), last = N - 1;
  std::copy(tokens.begin(), tokens.end(), tokens_.view().as<int32_t>());
  cu_seqlens_.view().as<int32_t>()[1] = int32_t(N);
  const int32_t length = int32_t(N);
  Tape tape(ctx_, params_, Tape::Mode::infer);
  const Var out = lm_.logits(tape,
                             {.tokens = tokens_.view().rows(0, N),
                              .targets = {},
                              .loss_scale = {},
                              .sequences = {cu_seqlens_.view(), {&length, 1}}},
                             {&last, 1}, &cache_);
  copy(out.value, logits_.view());
  length_ += N;
  return logits_.view();
}

std::vector<int32_t> generate(Generator& generator, std::span<const int32_t> prompt,
                              const GenerateOptions& options,
                              const std::function<void(int32_t)>& on_token) {
  const uint64_t key = rng_key(options.seed, "sample");
  std::vector<int32_t> made;
  Tensor logits = generator.feed(prompt);
  while (int64_t(made.size()) < options.max_new_tokens) {
    const int32_t token = options.temperature == 0
                              ? argmax(logits)
                              : sample(logits, options.temperature, key, generator.length());
    if (token == options.stop_token) break;
    made.push_back(token);
    if (on_token) on_token(token);
    if (int64_t(made.size()) < options.max_new_tokens) logits = generator.feed({&token, 1});
  }
  return made;
}

}  // namespace sluice
