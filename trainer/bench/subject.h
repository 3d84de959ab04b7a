// trainer/bench/subject.h -- a config's model with random weights and random texts, for benches of
// generation.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/autograd/plain_store.h"
#include "model/generate/generator.h"
#include "trainer/loop/config.h"
#include "trainer/loop/device.h"

namespace sluice {

class GenerationSubject {
 public:
  explicit GenerationSubject(const Config& config);  // model.vocab_size must be set

  std::unique_ptr<Generator> generator(const GeneratorOptions& options) const {
    return std::make_unique<Generator>(ctx, *params, *lm, dtype(), options);
  }
  bool on_gpu() const { return ctx.device == Device::cuda; }
  DType dtype() const { return on_gpu() ? DType::bf16 : DType::f32; }
  // Throws if, on a short text, single steps give other logits than one piece. Returns the largest
  // difference of logits; `largest` is the largest of them.
  double check_steps(double* largest) const;
  // `tokens` of a text, the same in every call; at most kText.
  std::span<const int32_t> text(int64_t tokens) const {
    return std::span(text_).first(size_t(tokens));
  }
  // The slot gets a context of so many tokens: a prefill of the first kRealTokens, whose rows in
  // the caches are repeated for the others, with states as they are. What then is read and computed
  // is as much, and took a small part of the time.
  void make_up(Generator& g, int64_t slot, int64_t tokens) const;
  // Slot `to` gets what slot 0 has: states, rows and length.
  void repeat(Generator& g, int64_t to) const;

  static constexpr int64_t kRealTokens = 512, kText = 16384;

  int threads;
  ThreadPool pool;
  Context ctx;
  DeviceHandles handles;
  std::unique_ptr<PlainStore> params;
  std::unique_ptr<Lm> lm;

 private:
  std::vector<int32_t> text_;
};

}  // namespace sluice
