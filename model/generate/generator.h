// model/generate/generator.h -- a sequence that is continued: prefill in pieces, then token by
// token.
//
// The same layers as in training, in inference mode, with a cache: KDA state and convolution inputs
// of fixed size, and for each MLA layer one latent row a token.
#pragma once

#include <functional>
#include <vector>

#include "kernels/tensor/context.h"
#include "model/lm/lm.h"

namespace sluice {

class Generator {
 public:
  // One sequence of at most max_tokens, fed in pieces of at most piece_tokens. `ctx` needs a device
  // and may have threads; the generator brings its own arena.
  Generator(const Context& ctx, ParamStore& params, const Lm& lm, DType dtype, int64_t max_tokens,
            int64_t piece_tokens = 256);

  // Adds tokens to the sequence. Returns the logits [vocab] after the last one; the view is valid
  // until the next call.
  Tensor feed(std::span<const int32_t> tokens);

  int64_t length() const { return length_; }
  int64_t cache_bytes() const { return cache_.bytes(); }  // allocated, for max_tokens

 private:
  Tensor feed_piece(std::span<const int32_t> tokens);
  int64_t plan(int64_t piece_tokens);

  Context ctx_;
  ParamStore& params_;
  const Lm& lm_;
  int64_t max_tokens_, piece_tokens_, length_ = 0;
  LmCache cache_;
  Arena arena_;
  Buffer tokens_, cu_seqlens_, logits_;
};

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  double temperature = 0;  // 0: greedy
  uint64_t seed = 1;
  int32_t stop_token = -1;  // ends the text and is not part of it
};

// Continues `prompt` (at least one token); calls on_token as each new token comes. Returns the new
// ones.
std::vector<int32_t> generate(Generator& generator, std::span<const int32_t> prompt,
                              const GenerateOptions& options,
                              const std::function<void(int32_t)>& on_token = {});

}  // namespace sluice
