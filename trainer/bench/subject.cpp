// trainer/bench/subject.cpp -- weights, texts, contexts that are made up.
#include "trainer/bench/subject.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "kernels/tensor/rng.h"

namespace sluice {

GenerationSubject::GenerationSubject(const Config& c)
    : threads(c.run.threads ? int(*c.run.threads)
                            : int(std::max(1u, std::thread::hardware_concurrency()))),
      pool(threads),
      ctx{.threads = &pool},
      handles(device_of(c.run.device), ctx) {
  if (!c.model.vocab_size) throw Error("model.vocab_size: expected a size (no tokenizer is read)");
  params = std::make_unique<PlainStore>(DType::f32, ctx.device, PlainStore::Purpose::inference);
  lm = std::make_unique<Lm>(c.model, *params);
  params->allocate();
  initialize(*params, uint64_t(c.run.seed), {.threads = &pool});
  params->refresh(ctx);
  for (int64_t i = 0; i < kText; ++i)
    text_.push_back(int32_t(random_uniform(1, uint64_t(i)) * double(*c.model.vocab_size)));
}

// Of the first row of logits.
static std::vector<float> on_host(const Tensor& logits) {
  const Tensor row = logits.rows(0, 1);
  std::vector<float> values(size_t(row.numel()));
  if (row.device == Device::cpu) {
    std::copy_n(row.as<float>(), row.numel(), values.begin());
    return values;
  }
  const Buffer host(row.dtype, {row.numel()});
  copy(row.reshape({row.numel()}), host.view());
  for (size_t i = 0; i < values.size(); ++i) {  // bf16: the upper half of a float
    const uint32_t bits = uint32_t(static_cast<const uint16_t*>(host.view().data)[i]) << 16;
    std::memcpy(&values[i], &bits, sizeof bits);
  }
  return values;
}

double GenerationSubject::check_steps(double* largest) const {
  constexpr int64_t kTokens = 72, kSingle = 8;
  const auto g = generator({.slots = 2, .max_tokens = kTokens, .prefill_chunk_tokens = kTokens});
  const auto feed = [&](CacheStep step, int64_t slot, int64_t begin, int64_t count) {
    const Generator::Piece piece{slot, text(kTokens).subspan(size_t(begin), size_t(count))};
    return g->feed(step, {&piece, 1});
  };
  g->join();
  g->join();
  const std::vector<float> want = on_host(feed(CacheStep::prefill, 0, 0, kTokens));
  feed(CacheStep::prefill, 1, 0, kTokens - kSingle);
  Tensor last;
  for (int64_t t = kTokens - kSingle; t < kTokens; ++t) last = feed(CacheStep::decode, 1, t, 1);
  const std::vector<float> got = on_host(last);
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    worst = std::max(worst, double(std::fabs(got[i] - want[i])));
    *largest = std::max(*largest, double(std::fabs(want[i])));
  }
  // Sums in other orders, through all layers: of f32, or with every activation rounded to bf16.
  const double bound = on_gpu() ? 0.1 : 1e-4;
  SLUICE_CHECK(worst < bound * *largest, "single steps give logits that are off by ", worst, " of ",
               *largest);
  return worst;
}

void GenerationSubject::make_up(Generator& g, int64_t slot, int64_t tokens) const {
  const int64_t real = std::min(kRealTokens, tokens);
  const Generator::Piece piece{slot, text(real)};
  g.feed(CacheStep::prefill, {&piece, 1});
  for (const MixerCache& layer : g.cache())
    for (const Buffer& buffer : layer.rows) {
      const Tensor t = buffer.view();  // [slots, max_tokens, width]
      const Tensor rows = t.rows(slot, 1).reshape({t.dim(1), t.numel() / t.dim(0) / t.dim(1)});
      for (int64_t have = real; have < tokens; have *= 2) {
        const int64_t n = std::min(have, tokens - have);
        copy_in_order(ctx, rows.rows(0, n), rows.rows(have, n));
      }
    }
  g.assume_length(slot, tokens);
}

void GenerationSubject::repeat(Generator& g, int64_t to) const {
  const int64_t tokens = g.length(0);
  for (const MixerCache& layer : g.cache()) {
    for (const Buffer& b : layer.state)
      copy_in_order(ctx, b.view().rows(0, 1), b.view().rows(to, 1));
    for (const Buffer& b : layer.rows) {
      const Tensor t = b.view();  // [slots, max_tokens, width]
      const auto rows = [&](int64_t slot) {
        return t.rows(slot, 1).reshape({t.dim(1), t.numel() / t.dim(0) / t.dim(1)}).rows(0, tokens);
      };
      copy_in_order(ctx, rows(0), rows(to));
    }
  }
  g.assume_length(to, tokens);
}

}  // namespace sluice
