// model/generate/generator.h -- sequences that are continued: a fixed number of slots with their
// caches, prefill in pieces and decoding token by token.
//
// The same layers as in training, in inference mode, with a cache: KDA state and convolution inputs
// of fixed size, and for each MLA layer one latent row a token. Sequences join a free slot and
// leave it at any time. A sequence's logits are a function of its own tokens, of how they were cut
// into calls, and of nothing else: to the bit, whatever the other slots hold. On CUDA the number of
// slots matters too (how a context is cut: kernels/mla_cache), and a prefill call is one piece.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kernels/device/graph.h"
#include "kernels/sample/sample.h"
#include "kernels/tensor/context.h"
#include "model/lm/lm.h"

namespace sluice {

struct GeneratorOptions {
  int64_t slots = 1;                   // sequences at a time
  int64_t max_tokens = 0;              // of one sequence
  int64_t prefill_chunk_tokens = 256;  // of all sequences of one call: bounds its memory
};

// Fixed when the generator is made.
struct GeneratorBytes {
  int64_t state_per_slot = 0;   // KDA states and convolution inputs
  int64_t cache_per_token = 0;  // latents
  int64_t cache_total = 0;      // state and cache of all slots, allocated
  int64_t arena = 0;            // activations of the largest call
};

// Of a cache with options.slots slots of options.max_tokens tokens; arena is 0.
GeneratorBytes cache_bytes(const LmCache& cache, const GeneratorOptions& options);

class Generator {
 public:
  // `ctx` needs a device with its handles and may have threads; the generator brings its own arena.
  // In Mode::run it computes batch-invariantly; Mode::reference is kept. The cache has the dtype of
  // activations: the parameters' on the CPU, bf16 on CUDA.
  Generator(const Context& ctx, ParamStore& params, const Lm& lm, DType dtype,
            const GeneratorOptions& options);

  // A slot for a new sequence, none if all are taken. It holds nothing of the sequence before.
  std::optional<int64_t> join();
  void leave(int64_t slot);
  int64_t length(int64_t slot) const { return past_.view().as<int32_t>()[slot]; }

  // Tokens for one slot. A call takes each slot once, in ascending order.
  struct Piece {
    int64_t slot;
    std::span<const int32_t> tokens;  // at least one
  };
  // Adds the tokens to the sequences: at most prefill_chunk_tokens of them in a prefill step, one a
  // piece in a decode step. Returns the logits [pieces, vocab] after the last token of each; the
  // view is valid until the next call.
  Tensor feed(CacheStep step, std::span<const Piece> pieces);
  // Of one prefill call.
  int64_t most_pieces() const { return ctx_.device == Device::cuda ? 1 : options_.slots; }

  // A token of each row of what feed() returned, on the host until the next call.
  struct Sampled {
    std::span<const int32_t> tokens;
    std::span<const float> logprobs;
  };
  Sampled sample(const Tensor& logits, std::span<const SampleRule> rules);

  // For benchmarks: from here on the slot counts as one of so many tokens, whose rows in cache()
  // the caller has filled in.
  void assume_length(int64_t slot, int64_t tokens);

  const Context& context() const { return ctx_; }
  const GeneratorOptions& options() const { return options_; }
  const GeneratorBytes& bytes() const { return bytes_; }
  const LmCache& cache() const { return cache_; }
  const Arena& arena() const { return arena_; }

 private:
  using Script = std::vector<Arena::Range>;
  // What a call reads, in one buffer, so that it goes to the device in one copy.
  struct Inputs {
    Inputs(const GeneratorOptions& o, Device device);
    Buffer memory;
    // [most tokens], [slots + 1], [slots], [slots]: the rows whose logits are asked for; i32
    Tensor tokens, cu_seqlens, past, last_rows;
  };

  Script plan(CacheStep step, int64_t& peak) const;
  int64_t plan_sampling() const;
  int64_t load(CacheStep step, std::span<const Piece> pieces);
  Context context_of(CacheStep step) const;
  void run(CacheStep step, int64_t N, int64_t pieces);
  void run_decode(int64_t pieces);
  bool taken(int64_t slot) const { return taken_.at(size_t(slot)); }

  Context ctx_;
  ParamStore& params_;
  const Lm& lm_;
  GeneratorOptions options_;
  LmCache cache_;
  GeneratorBytes bytes_;
  Script prefill_script_, decode_script_;
  Arena arena_, sampling_arena_;
  std::vector<bool> taken_;                                 // by slot
  Inputs inputs_;                                           // where the layers read them
  std::optional<Inputs> host_inputs_;                       // on CUDA: where they are made
  Buffer past_;                                             // [slots] i32, on the host
  Buffer logits_;                                           // [slots, vocab]
  Buffer tokens_, logprobs_, host_tokens_, host_logprobs_;  // sampled: [slots] i32, f32
  std::map<int64_t, Graph> graphs_;  // CUDA: decode steps by pieces; empty: it ran once
};

}  // namespace sluice
