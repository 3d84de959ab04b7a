// model/lm/lm.h -- the hybrid language model: embedding, blocks of mixer and channel mixer, head.
//
//   x = E[token];  each block:  x += Mixer(RMSNorm(x));  x += Ffn(RMSNorm(x))
//   loss = cross entropy of W_head RMSNorm(x)
//
// Parameter groups (blocks): embedding, layers.0 ... layers.L-1, head.
#pragma once

#include <memory>
#include <vector>

#include "model/layers/layer.h"
#include "model/lm/config.h"
#include "model/lm/residual.h"

namespace sluice {

struct LmBatch {
  Tensor tokens;      // [N] i32
  Tensor targets;     // [N] i32, kIgnoreIndex where nothing is predicted; for loss() only
  Tensor loss_scale;  // [1] f64, 1 / valid tokens of the global batch; for loss() only
  Sequences sequences;
  double z_loss = 0;  // coefficient of the squared log sum of exp logits; for loss() only
  // Optional, written by loss():
  Tensor loss_terms{};  // [2] f64: cross entropy, z-loss
  Tensor nll{};         // [N] as the activations: cross entropy of each token, 0 where not valid
  Tensor predicted{};   // [N] i32: the likeliest target of each token
};

using LmCache = std::vector<MixerCache>;  // one a layer

class Lm {
 public:
  // Registers every parameter; config.vocab_size must be set. The store is allocated by the caller.
  Lm(const LmConfig& config, ParamStore& params);

  Var loss(Tape& tape, const LmBatch& batch, Recompute recompute) const;  // [1] f64
  // Logits of the rows named, [n] i32 on the device: [n, vocab]. With a cache the documents, its
  // slots, go on.
  Var logits(Tape& tape, const LmBatch& batch, const Tensor& rows, const LmCache* cache) const;
  LmCache make_cache(DType dtype, Device device, int64_t slots, int64_t max_tokens) const;

  const LmConfig& config() const { return config_; }
  const std::vector<std::string>& pattern() const { return pattern_; }
  LayerCost mixer_cost(int64_t layer, int64_t context_tokens) const;
  LayerCost ffn_cost(int64_t layer) const;

 private:
  struct Block {
    std::string name;
    int group;
    ParamId mixer_norm, ffn_norm;
    std::unique_ptr<Mixer> mixer;
    std::unique_ptr<Ffn> ffn;
  };

  void add_block(ParamStore& params, int64_t layer, const LayerConfig& config);
  SumResidual::State run_blocks(Tape& tape, const LmBatch& batch, Recompute recompute,
                                const LmCache* cache) const;
  std::vector<int> head_groups() const;

  LmConfig config_;
  std::vector<std::string> pattern_;
  SumResidual residual_;
  int embedding_group_, head_group_ = 0;
  ParamId embedding_, final_norm_, head_;
  std::vector<Block> blocks_;
};

}  // namespace sluice
