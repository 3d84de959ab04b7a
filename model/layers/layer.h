// model/layers/layer.h -- what a token mixer and a channel mixer are to the model.
//
// Dims: N tokens (packed documents), D model width, S sequences.
#pragma once

#include <memory>
#include <string>

#include "kernels/comm/sequence_exchange.h"
#include "model/autograd/tape.h"
#include "model/layers/cache.h"
#include "model/layers/scope.h"

namespace sluice {

// FLOPs of one token's forward pass, multiply and add counted as two.
struct LayerCost {
  double matmul = 0;    // with the layer's own weights: 2 * elements
  double sequence = 0;  // of the mixing along the sequence, at the given context length
};

// The packed documents of one call.
struct Sequences {
  Tensor cu_seqlens;  // [S + 1] i32, on the device
  // With a cache only, whose slots are the documents:
  Tensor past{};  // [S] i32, on the device: tokens that each slot holds before the call
  CacheStep step = CacheStep::prefill;
  SlotsOnHost on_host{};  // cu_seqlens and past, for a prefill on CUDA
  int64_t longest = 0;    // no document has more tokens; 0: not known
  // Null: no other rank has tokens of them. Else cu_seqlens has those of this rank; outlives the
  // tape.
  const SequenceExchange* exchange = nullptr;
};

// Mixes along the sequence: [N, D] -> [N, D].
class Mixer {
 public:
  virtual ~Mixer() = default;
  // With a cache the documents go on from it and are added to it (generation: the tape infers).
  virtual Var forward(Tape& tape, const Var& x_ND, const Sequences& seq,
                      const MixerCache* cache) const = 0;
  // Room for `slots` sequences of at most max_tokens, allocated here and never again.
  virtual MixerCache make_cache(DType dtype, Device device, int64_t slots,
                                int64_t max_tokens) const = 0;
  virtual LayerCost cost(int64_t context_tokens) const = 0;
};

// Mixes channels, token by token: [N, D] -> [N, D].
class Ffn {
 public:
  virtual ~Ffn() = default;
  virtual Var forward(Tape& tape, const Var& x_ND) const = 0;
  virtual LayerCost cost() const = 0;
};

}  // namespace sluice
