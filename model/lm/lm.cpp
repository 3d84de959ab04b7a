// model/lm/lm.cpp -- the model as a list of blocks on the tape.
#include "model/lm/lm.h"

#include "model/autograd/basic_ops.h"
#include "model/autograd/loss_op.h"
#include "model/layers/registry.h"

namespace sluice {

Lm::Lm(const LmConfig& config, ParamStore& params) : config_(config), pattern_(config.pattern()) {
  SLUICE_CHECK(config.vocab_size, "vocab_size is not set");
  const int64_t D = config.hidden_size, V = *config.vocab_size;
  const Init normal{Init::Kind::normal, config.initializer_range, 0};

  embedding_group_ = params.add_group("embedding");
  const ParamScope embedding{params, embedding_group_, "embedding", config.initializer_range};
  embedding_ = embedding.add("weight", {V, D}, normal);

  const LayerConfig layer{.hidden_size = D,
                          .intermediate_size = config.intermediate_size,
                          .rms_norm_eps = config.rms_norm_eps,
                          .kda = config.kda,
                          .mla = config.mla,
                          .moe = config.moe};
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) add_block(params, i, layer);

  head_group_ = params.add_group("head");
  const ParamScope head{params, head_group_, "head", config.initializer_range};
  final_norm_ = head.norm_weight("norm", D);
  head_ = config.tie_word_embeddings ? embedding_ : head.add("weight", {V, D}, normal);
}

void Lm::add_block(ParamStore& params, int64_t layer, const LayerConfig& config) {
  Block b;
  b.name = cat("layers.", layer);
  b.group = params.add_group(b.name);
  const ParamScope scope{params, b.group, b.name, config_.initializer_range};
  const std::string& kind = pattern_[size_t(layer)];
  b.mixer_norm = scope.norm_weight("mixer_norm", config.hidden_size);
  b.mixer = make_mixer(kind, scope.sub(kind), config);
  b.ffn_norm = scope.norm_weight("ffn_norm", config.hidden_size);
  b.ffn = make_ffn(config_.ffn_of(layer), scope.sub("ffn"), config);
  blocks_.push_back(std::move(b));
}

SumResidual::State Lm::run_blocks(Tape& tape, const LmBatch& batch, Recompute recompute,
                                  const LmCache* cache) const {
  const auto embedded = tape.block("embedding", {embedding_group_}, Recompute::none, [&] {
    return std::vector<Var>{embedding(tape, batch.tokens, embedding_)};
  });
  SumResidual::State state = residual_.start(tape, embedded.front());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& b = blocks_[i];
    const MixerCache* layer_cache = cache ? &cache->at(i) : nullptr;
    // Everything by value or outliving the tape: a recomputed block runs again during backward.
    auto body = [this, &tape, &b, seq = batch.sequences, layer_cache, entering = state] {
      SumResidual::State s = entering;
      const double eps = config_.rms_norm_eps;
      residual_.write(
          tape, s,
          b.mixer->forward(tape, rmsnorm(tape, residual_.read(tape, s), b.mixer_norm, eps), seq,
                           layer_cache));
      residual_.write(
          tape, s, b.ffn->forward(tape, rmsnorm(tape, residual_.read(tape, s), b.ffn_norm, eps)));
      return s;
    };
    state = tape.block(b.name, {b.group}, recompute, body);
  }
  return state;
}

std::vector<int> Lm::head_groups() const {
  if (config_.tie_word_embeddings) return {head_group_, embedding_group_};
  return {head_group_};
}

Var Lm::loss(Tape& tape, const LmBatch& batch, Recompute recompute) const {
  const SumResidual::State state = run_blocks(tape, batch, recompute, nullptr);
  const auto out = tape.block("head", head_groups(), Recompute::none, [&] {
    const Var h = rmsnorm(tape, residual_.finish(tape, state), final_norm_, config_.rms_norm_eps);
    return std::vector<Var>{linear_cross_entropy(tape, h, head_,
                                                 {batch.targets, batch.loss_scale, batch.z_loss,
                                                  batch.loss_terms, batch.nll, batch.predicted})};
  });
  return out.front();
}

Var Lm::logits(Tape& tape, const LmBatch& batch, const Tensor& rows, const LmCache* cache) const {
  SLUICE_CHECK(!tape.recording(), "logits are for inference");
  const SumResidual::State state = run_blocks(tape, batch, Recompute::none, cache);
  const Var picked = pick_rows(tape, residual_.finish(tape, state), rows);
  const auto out = tape.block("head", head_groups(), Recompute::none, [&] {
    return std::vector<Var>{
        linear(tape, rmsnorm(tape, picked, final_norm_, config_.rms_norm_eps), head_)};
  });
  return out.front();
}

LmCache Lm::make_cache(DType dtype, Device device, int64_t slots, int64_t max_tokens) const {
  LmCache cache;
  for (const Block& b : blocks_)
    cache.push_back(b.mixer->make_cache(dtype, device, slots, max_tokens));
  return cache;
}

LayerCost Lm::mixer_cost(int64_t layer, int64_t context_tokens) const {
  return blocks_.at(size_t(layer)).mixer->cost(context_tokens);
}

LayerCost Lm::ffn_cost(int64_t layer) const {
  return blocks_.at(size_t(layer)).ffn->cost();
}

}  // namespace sluice
