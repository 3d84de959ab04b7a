// model/generate/generator.cpp -- slots, and one call of the model for any of them.
#include "model/generate/generator.h"

#include <algorithm>

namespace sluice {

GeneratorBytes cache_bytes(const LmCache& cache, const GeneratorOptions& o) {
  GeneratorBytes n;
  for (const MixerCache& layer : cache) {
    for (const Buffer& b : layer.state) n.state_per_slot += b.view().bytes() / o.slots;
    for (const Buffer& b : layer.rows)
      n.cache_per_token += b.view().bytes() / o.slots / o.max_tokens;
  }
  n.cache_total = o.slots * (n.state_per_slot + o.max_tokens * n.cache_per_token);
  return n;
}

namespace {

GeneratorOptions checked(const GeneratorOptions& o) {
  SLUICE_CHECK(o.slots > 0 && o.max_tokens > 0 && o.prefill_chunk_tokens > 0, "slots is ", o.slots,
               ", max_tokens ", o.max_tokens, ", prefill_chunk_tokens ", o.prefill_chunk_tokens);
  return o;
}

}  // namespace

Generator::Generator(const Context& ctx, ParamStore& params, const Lm& lm, DType dtype,
                     const GeneratorOptions& options)
    : ctx_(ctx),
      params_(params),
      lm_(lm),
      options_(checked(options)),
      cache_(lm.make_cache(dtype, ctx.device, options.slots, options.max_tokens)),
      bytes_(cache_bytes(cache_, options)),
      prefill_script_(plan(CacheStep::prefill, bytes_.arena)),
      decode_script_(plan(CacheStep::decode, bytes_.arena)),
      arena_(ctx.device, bytes_.arena),
      taken_(size_t(options.slots), false),
      tokens_(DType::i32, {std::max(options.slots, options.prefill_chunk_tokens)}),
      cu_seqlens_(DType::i32, {options.slots + 1}),
      past_(DType::i32, {options.slots}),
      logits_(dtype, {options.slots, *lm.config().vocab_size}) {
  SLUICE_CHECK(ctx.device == Device::cpu, "generation has no CUDA path yet");
  ctx_.arena = &arena_;
  if (ctx_.mode == Mode::run) ctx_.mode = Mode::batch_invariant;
}

// The ranges of the largest call of a kind; `peak` is raised to its bytes. Smaller calls make the
// same takes for fewer rows, so they follow it.
Generator::Script Generator::plan(CacheStep step, int64_t& peak) const {
  const int64_t slots = options_.slots;
  const int64_t N = step == CacheStep::decode ? slots : options_.prefill_chunk_tokens;
  Arena arena = Arena::plan(ctx_.device);
  Context ctx = ctx_;
  ctx.mode = Mode::plan;
  ctx.arena = &arena;
  const std::vector<int64_t> rows(size_t(std::min(slots, N)), 0);
  auto shaped = [&](int64_t n) { return make_tensor(nullptr, DType::i32, ctx.device, {n}); };
  {
    Tape tape(ctx, params_, Tape::Mode::infer);
    lm_.logits(tape,
               {.tokens = shaped(N),
                .targets = {},
                .loss_scale = {},
                .sequences = {shaped(slots + 1), shaped(slots), step}},
               rows, &cache_);
  }
  peak = std::max(peak, arena.peak());
  return arena.script();
}

std::optional<int64_t> Generator::join() {
  const auto free = std::find(taken_.begin(), taken_.end(), false);
  if (free == taken_.end()) return std::nullopt;
  const int64_t slot = free - taken_.begin();
  *free = true;
  past_.view().as<int32_t>()[slot] = 0;
  for (const MixerCache& layer : cache_) layer.clear(ctx_, slot);
  return slot;
}

void Generator::leave(int64_t slot) {
  SLUICE_CHECK(taken(slot), "slot ", slot, " is free");
  taken_[size_t(slot)] = false;
}

void Generator::assume_length(int64_t slot, int64_t tokens) {
  SLUICE_CHECK(taken(slot), "slot ", slot, " is free");
  SLUICE_CHECK(tokens >= 0 && tokens <= options_.max_tokens, tokens, " tokens, room was made for ",
               options_.max_tokens);
  past_.view().as<int32_t>()[slot] = int32_t(tokens);
}

// Tokens, offsets and last rows of a call.
void Generator::load(CacheStep step, std::span<const Piece> pieces) {
  const int64_t most = step == CacheStep::decode ? options_.slots : options_.prefill_chunk_tokens;
  int32_t *tokens = tokens_.view().as<int32_t>(), *cu = cu_seqlens_.view().as<int32_t>();
  last_rows_.clear();
  int64_t N = 0, slot = 0;
  for (const Piece& p : pieces) {
    SLUICE_CHECK(p.slot >= slot && p.slot < options_.slots, "slot ", p.slot, " after slot ",
                 slot - 1, " of ", options_.slots);
    SLUICE_CHECK(taken(p.slot) && !p.tokens.empty(), "slot ", p.slot, " is ",
                 taken(p.slot) ? "taken" : "free", " and gets ", p.tokens.size(), " tokens");
    const int64_t n = int64_t(p.tokens.size());
    SLUICE_CHECK(length(p.slot) + n <= options_.max_tokens, "the sequence in slot ", p.slot,
                 " would have ", length(p.slot) + n, " tokens, room was made for ",
                 options_.max_tokens);
    SLUICE_CHECK(step == CacheStep::prefill || n == 1, "slot ", p.slot, " decodes ", n, " tokens");
    SLUICE_CHECK(N + n <= most, "a call of ", N + n, " tokens and more, planned for ", most);
    for (; slot <= p.slot; ++slot) cu[slot] = int32_t(N);
    std::copy(p.tokens.begin(), p.tokens.end(), tokens + N);
    N += n;
    last_rows_.push_back(N - 1);
  }
  for (; slot <= options_.slots; ++slot) cu[slot] = int32_t(N);
}

Tensor Generator::feed(CacheStep step, std::span<const Piece> pieces) {
  SLUICE_CHECK(!pieces.empty(), "nothing to feed");
  const bool decode = step == CacheStep::decode;
  load(step, pieces);
  arena_.follow(decode ? decode_script_ : prefill_script_);
  const Tensor logits = logits_.view().rows(0, int64_t(pieces.size()));
  {
    Tape tape(ctx_, params_, Tape::Mode::infer);
    const Var out = lm_.logits(tape,
                               {.tokens = tokens_.view().rows(0, last_rows_.back() + 1),
                                .targets = {},
                                .loss_scale = {},
                                .sequences = {cu_seqlens_.view(), past_.view(), step}},
                               last_rows_, &cache_);
    copy(out.value, logits);
  }
  for (const Piece& p : pieces) past_.view().as<int32_t>()[p.slot] += int32_t(p.tokens.size());
  return logits;
}

}  // namespace sluice
