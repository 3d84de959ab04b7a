// model/generate/generator.cpp -- slots, and one call of the model for any of them.
#include "model/generate/generator.h"

#include <algorithm>
#include <utility>

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

Generator::Inputs::Inputs(const GeneratorOptions& o, Device device) {
  const int64_t most = std::max(o.slots, o.prefill_chunk_tokens);
  memory = Buffer(DType::i32, {most + 3 * o.slots + 1}, device);
  int64_t at = 0;
  const auto take = [&](int64_t n) { return memory.view().rows(std::exchange(at, at + n), n); };
  tokens = take(most), cu_seqlens = take(o.slots + 1), past = take(o.slots);
  last_rows = take(o.slots);
}

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
      sampling_arena_(ctx.device, plan_sampling()),
      taken_(size_t(options.slots), false),
      inputs_(options, ctx.device),
      past_(DType::i32, {options.slots}),
      logits_(dtype, {options.slots, *lm.config().vocab_size}, ctx.device),
      tokens_(DType::i32, {options.slots}, ctx.device),
      logprobs_(DType::f32, {options.slots}, ctx.device),
      host_tokens_(DType::i32, {options.slots}),
      host_logprobs_(DType::f32, {options.slots}) {
  if (ctx.device == Device::cuda) host_inputs_.emplace(options, Device::cpu);
  ctx_.arena = &arena_;
  if (ctx_.mode == Mode::run) ctx_.mode = Mode::batch_invariant;
}

// On CUDA a prefill call is one sequence's: there is no batch to be invariant of.
Context Generator::context_of(CacheStep step) const {
  Context ctx = ctx_;
  if (ctx.device == Device::cuda && step == CacheStep::prefill) ctx.mode = Mode::run;
  return ctx;
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
  auto shaped = [&](int64_t n) { return make_tensor(nullptr, DType::i32, ctx.device, {n}); };
  {
    Tape tape(ctx, params_, Tape::Mode::infer);
    lm_.logits(tape,
               {.tokens = shaped(N),
                .targets = {},
                .loss_scale = {},
                .sequences = {shaped(slots + 1), shaped(slots), step}},
               shaped(std::min(slots, N)), &cache_);
  }
  peak = std::max(peak, arena.peak());
  return arena.script();
}

int64_t Generator::plan_sampling() const {
  Arena arena = Arena::plan(ctx_.device);
  Context ctx = ctx_;
  ctx.mode = Mode::plan;
  ctx.arena = &arena;
  const int64_t slots = options_.slots;
  const std::vector<SampleRule> rules(static_cast<size_t>(slots));
  const auto shaped = [&](DType type, std::initializer_list<int64_t> shape) {
    return make_tensor(nullptr, type, ctx.device, shape);
  };
  const DType dtype = ctx.device == Device::cuda ? DType::bf16 : DType::f32;
  sluice::sample(ctx, {.logits = shaped(dtype, {slots, *lm_.config().vocab_size}),
                       .rules = rules,
                       .token = shaped(DType::i32, {slots}),
                       .logprob = shaped(DType::f32, {slots})});
  return arena.peak();
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

// Tokens, offsets and last rows of a call, which has so many tokens.
int64_t Generator::load(CacheStep step, std::span<const Piece> pieces) {
  const int64_t most = step == CacheStep::decode ? options_.slots : options_.prefill_chunk_tokens;
  const Inputs& in = host_inputs_ ? *host_inputs_ : inputs_;
  int32_t *tokens = in.tokens.as<int32_t>(), *cu = in.cu_seqlens.as<int32_t>();
  int64_t N = 0, slot = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& p = pieces[i];
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
    in.last_rows.as<int32_t>()[i] = int32_t(N - 1);
  }
  for (; slot <= options_.slots; ++slot) cu[slot] = int32_t(N);
  copy(past_.view(), in.past);
  if (host_inputs_) copy_in_order(ctx_, in.memory.view(), inputs_.memory.view());
  return N;
}

// The model on what was loaded, into logits_.
void Generator::run(CacheStep step, int64_t N, int64_t pieces) {
  const Context ctx = context_of(step);
  const auto on_host = [](const Tensor& t) {
    return std::span<const int32_t>(t.as<int32_t>(), size_t(t.dim(0)));
  };
  Sequences sequences{inputs_.cu_seqlens, inputs_.past, step};
  if (host_inputs_)
    sequences.on_host = {on_host(host_inputs_->cu_seqlens), on_host(host_inputs_->past)};
  arena_.follow(step == CacheStep::decode ? decode_script_ : prefill_script_);
  Tape tape(ctx, params_, Tape::Mode::infer);
  const Var out = lm_.logits(tape,
                             {.tokens = inputs_.tokens.rows(0, N),
                              .targets = {},
                              .loss_scale = {},
                              .sequences = sequences},
                             inputs_.last_rows.rows(0, pieces), &cache_);
  copy_in_order(ctx, out.value, logits_.view().rows(0, pieces));
}

// On CUDA the second step of so many pieces, and every one after it, is one launch: addresses are
// those of the plan, and lengths are read on the device.
void Generator::run_decode(int64_t pieces) {
  const auto body = [&] { run(CacheStep::decode, pieces, pieces); };
  if (ctx_.device == Device::cpu) return body();
  const auto [at, first] = graphs_.try_emplace(pieces);
  if (first) return body();
  if (!at->second) at->second.capture(ctx_, body);
  at->second.launch(ctx_);
}

Tensor Generator::feed(CacheStep step, std::span<const Piece> pieces) {
  SLUICE_CHECK(!pieces.empty(), "nothing to feed");
  const bool decode = step == CacheStep::decode;
  const int64_t count = int64_t(pieces.size());
  SLUICE_CHECK(decode || count <= most_pieces(), "a prefill call of ", count, " pieces, at most ",
               most_pieces());
  const int64_t N = load(step, pieces);
  decode ? run_decode(count) : run(step, N, count);
  for (const Piece& p : pieces) past_.view().as<int32_t>()[p.slot] += int32_t(p.tokens.size());
  return logits_.view().rows(0, count);
}

Generator::Sampled Generator::sample(const Tensor& logits, std::span<const SampleRule> rules) {
  const int64_t N = logits.dim(0);
  const Tensor tokens = tokens_.view().rows(0, N), logprobs = logprobs_.view().rows(0, N);
  Context ctx = ctx_;
  ctx.arena = &sampling_arena_;
  sluice::sample(ctx, {.logits = logits, .rules = rules, .token = tokens, .logprob = logprobs});
  const Tensor to = host_tokens_.view().rows(0, N);
  copy(tokens, to), copy(logprobs, host_logprobs_.view().rows(0, N));
  const std::span<const int32_t> chosen(to.as<int32_t>(), size_t(N));
  for (int64_t n = 0; n < N; ++n)
    SLUICE_CHECK(chosen[size_t(n)] >= 0, "logits of row ", n,
                 ": one is NaN, or the largest is not finite");
  return {chosen, {host_logprobs_.view().as<float>(), size_t(N)}};
}

}  // namespace sluice
