// trainer/plan/work.cpp -- counts of elements by layer kind. An op that moves x elements forward
// and y backward is written {x, y}.
#include "trainer/plan/work.h"

#include <algorithm>

namespace sluice {

namespace {

struct Moved {
  double forward = 0, backward = 0;  // elements
  void add(double width, double f, double b) {
    forward += f * width;
    backward += b * width;
  }
};

Moved moved_by_mixer(const LmConfig& c, const std::string& kind) {
  Moved m;
  if (kind == "kda" || kind == "gdn" || kind == "mamba2") {
    const double K = double(c.kda.head_dim), V = double(c.kda.num_value_heads) * K;
    if (c.kda.short_conv_kernel_size > 0)
      m.add(2 * double(c.kda.num_heads) * K + V, 2, 3);  // y of x; dx of x and dy
    m.add(V, 3, 5);                                      // the gated norm: two in, one out
  } else if (kind == "mla") {
    const double H = double(c.mla.num_attention_heads);
    m.add(double(c.mla.kv_lora_rank), 2, 4);
    m.add(H * double(c.mla.qk_nope_head_dim + c.mla.qk_rope_head_dim), 2, 2);  // keys put together
    if (c.mla.use_output_gate) m.add(H * double(c.mla.v_head_dim), 3, 5);
  }
  return m;
}

Moved moved_by_ffn(const LmConfig& c, const std::string& kind) {
  Moved m;
  if (kind == "dense") {
    m.add(double(c.intermediate_size), 3, 5);  // SwiGLU
    return m;
  }
  const double D = double(c.hidden_size), k = double(c.moe.num_experts_per_token);
  m.add((k + double(c.moe.num_shared_experts)) * double(c.moe.moe_intermediate_size), 3, 5);
  m.add((k + 1) * D, 2, 3);  // dispatch and combine
  return m;
}

}  // namespace

TokenWork token_work(const Lm& lm, int64_t context_tokens, int64_t activation_bytes) {
  const LmConfig& c = lm.config();
  const double D = double(c.hidden_size);
  TokenWork w;
  Moved moved;
  w.head = 2 * D * double(*c.vocab_size);
  moved.add(D, 2, 2);  // embedding
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string kind = lm.pattern()[size_t(i)], ffn = c.ffn_of(i);
    const LayerCost mixer = lm.mixer_cost(i, context_tokens), channels = lm.ffn_cost(i);
    w.linear += mixer.matmul + channels.matmul;
    (kind == "mla" ? w.attention : w.kda) += mixer.sequence;
    if (ffn == "moe") {
      const double routed =
          6 * double(c.moe.num_experts_per_token) * D * double(c.moe.moe_intermediate_size);
      w.experts += routed;
      w.linear -= routed;
    }
    moved.add(D, 2 * (2 + 3), 2 * 4);  // two norms and two sums; gradients of sums are passed on
    for (const Moved& m : {moved_by_mixer(c, kind), moved_by_ffn(c, ffn)})
      moved.forward += m.forward, moved.backward += m.backward;
  }
  w.moved_forward = moved.forward * double(activation_bytes);
  w.moved_backward = moved.backward * double(activation_bytes);
  return w;
}

std::vector<Seconds> micro_batch_seconds(const TokenWork& w, int64_t tokens, Recompute recompute,
                                         const ComputeFigures& f) {
  const double N = double(tokens);
  // How often the forward pass of what is made again runs; a product's backward is two of them.
  const double cheap = recompute == Recompute::none ? 1 : 2,
               products = recompute == Recompute::block ? 2 : 1;
  return {
      {"linear", N * w.linear * (products + 2) / f.linear_flops},
      {"head and loss", N * w.head * 3 / f.head_flops},
      {"experts", N * w.experts * (products + 2) / f.experts_flops},
      {"kda", N * w.kda * (cheap / f.kda_forward_flops + 2 / f.kda_backward_flops)},
      {"attention",
       N * w.attention * (products / f.attention_forward_flops + 2 / f.attention_backward_flops)},
      {"elementwise", N * (w.moved_forward * cheap + w.moved_backward) / f.elementwise_bytes},
      {"micro-batch", f.micro_batch_seconds},
  };
}

std::vector<Seconds> update_seconds(const UpdateWork& w, const Figures& f) {
  const double here = w.bytes / f.compute.update_bytes,
               host = w.host_bytes / f.host_bytes_per_second;
  return {{"update", std::max(here, host)},
          {"orthogonalisation", w.flops / f.compute.muon_flops},
          {"step", f.compute.step_seconds}};
}

double sum(const std::vector<Seconds>& rows) {
  double s = 0;
  for (const Seconds& r : rows) s += r.seconds;
  return s;
}

}  // namespace sluice
