// trainer/gradcheck/gradcheck.cpp -- the whole model, parameter by parameter.
#include "trainer/gradcheck/gradcheck.h"

#include <fmt/format.h>

#include <cmath>

#include "model/autograd/moe_ops.h"
#include "model/autograd/plain_store.h"
#include "model/lm/lm.h"
#include "trainer/gradcheck/differences.h"

namespace sluice {

LmConfig gradcheck_config() {
  LmConfig c;
  c.vocab_size = 23;
  c.hidden_size = 12;
  c.num_hidden_layers = 4;
  c.layers = {"kda", "kda", "mla", "identity"};
  c.intermediate_size = 16;
  c.kda.num_heads = 2;
  c.kda.num_value_heads = 4;
  c.kda.head_dim = 5;
  c.kda.short_conv_kernel_size = 3;
  c.mla.num_attention_heads = 2;
  c.mla.kv_lora_rank = 6;
  c.mla.qk_nope_head_dim = 4;
  c.mla.qk_rope_head_dim = 2;
  c.mla.v_head_dim = 3;
  c.initializer_range = 0.3;  // large enough that no gradient is lost in rounding
  return c;
}

LmConfig gradcheck_moe_config() {
  LmConfig c = gradcheck_config();
  c.ffn = "moe";
  c.moe = {.num_experts = 5, .num_experts_per_token = 2, .moe_intermediate_size = 7};
  return c;
}

LmConfig gradcheck_gdn_config() {
  LmConfig c = gradcheck_config();
  c.layers = {"gdn", "mamba2", "gdn", "mla"};
  c.kda.allow_neg_eigval = true;
  return c;
}

LmConfig gradcheck_variant_config() {
  LmConfig c = gradcheck_config();
  c.kda.short_conv_kernel_size = 0;
  c.kda.use_full_rank_gate = true;
  c.mla.q_lora_rank = 5;
  c.mla.use_output_gate = true;
  return c;
}

// Unequal biases of the routers: loads that differ, and a last expert that is never chosen.
static void set_expert_biases(const ParamStore& params) {
  for (const Shard& s : params.shards()) {
    if (params.spec(s.id).rule != UpdateRule::expert_load) continue;
    const int64_t E = s.master.dim(0);
    for (int64_t e = 0; e < E; ++e)
      s.master.as<double>()[e] = e + 1 == E && E > 2 ? -2 : 0.1 * double(e * 7 % 5);
  }
}

std::vector<GradcheckRow> gradcheck_model(const Context& ctx, const LmConfig& config,
                                          Recompute recompute, uint64_t seed) {
  PlainStore params(DType::f64);
  const Lm lm(config, params);
  params.allocate();
  initialize(params, seed);
  set_expert_biases(params);

  const std::vector<int32_t> cu = {0, 1, 1, 20, 87, 90, 90};  // documents of 1, 0, 19, 67, 3, 0
  const int64_t N = cu.back();
  Buffer tokens(DType::i32, {N}), targets(DType::i32, {N}), scale(DType::f64, {1});
  Buffer cu_seqlens(DType::i32, {int64_t(cu.size())});
  std::copy(cu.begin(), cu.end(), cu_seqlens.view().as<int32_t>());
  for (int64_t n = 0; n < N; ++n) {
    tokens.view().as<int32_t>()[n] =
        int32_t(random_u64(seed, uint64_t(n)) % uint64_t(*config.vocab_size));
    targets.view().as<int32_t>()[n] =
        n % 7 == 3 ? -1 : int32_t(random_u64(seed + 1, uint64_t(n)) % uint64_t(*config.vocab_size));
  }
  *scale.view().as<double>() = 1.0 / 77;

  RouterChoices choices;  // the unperturbed run's, for all
  auto run = [&](Tape& tape, Recompute r) {
    tape.replay_choices(&choices);
    return lm.loss(tape,
                   {.tokens = tokens.view(),
                    .targets = targets.view(),
                    .loss_scale = scale.view(),
                    .sequences = {cu_seqlens.view(), {}},
                    .z_loss = 0.01},
                   r);
  };
  auto loss = [&] {
    Tape tape(ctx, params, Tape::Mode::infer);
    return *run(tape, Recompute::none).value.as<double>();
  };
  params.start_step();
  {
    Tape tape(ctx, params, Tape::Mode::train);
    tape.backward(run(tape, recompute));
  }
  params.finish_gradients();

  std::vector<GradcheckRow> rows;
  for (const Shard& s : params.trained_shards())
    rows.push_back({params.spec(s.id).name, directional_error(loss, s.master, s.grad, seed + 2)});
  return rows;
}

std::string to_string(const std::vector<GradcheckRow>& rows) {
  std::string out;
  for (const GradcheckRow& r : rows) out += fmt::format("  {:<44} {:.2e}\n", r.name, r.error);
  return out;
}

double worst(const std::vector<GradcheckRow>& rows) {
  double w = 0;
  for (const GradcheckRow& r : rows)
    w = r.error <= w ? w : std::isnan(r.error) ? INFINITY : r.error;
  return w;
}

}  // namespace sluice
