// kernels/moe/route/route.h -- which experts a token goes to, and with which weights.
//
//   s[n,e]  = sigmoid(z[n,e])   or   softmax over e of z[n,:]
//   pick[n] = the k experts with the largest s[n,e] + bias[e], largest first, of equals the lowest
//   e w[n,j]  = c s[n,pick[n,j]] / (sum_i s[n,pick[n,i]] + 1e-20)    if renormalize and k > 1
//           = c s[n,pick[n,j]]                                     otherwise
//
// The bias takes part in the selection alone: no weight has it in, and it has no gradient. The
// choice counts as a constant in backward.
//
// Source: DeepSeek-V3, arXiv:2412.19437; Wang et al., 2024, arXiv:2408.15664 (the bias). Dims: N
// tokens, E experts, k choices a token. T is f32 (f64 in checks), whatever the model computes in.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

enum class RouterScore : uint8_t { sigmoid, softmax };

struct RouteParams {
  RouterScore score = RouterScore::sigmoid;
  bool renormalize = true;
  double scale = 1;  // c
};

struct RouteForward {
  Tensor logits;   // in  [N, E] T
  Tensor bias;     // in  [E]    T
  Tensor given;    // in  [N, k] i32, optional: the choice of an earlier pass, taken as it is
  Tensor scores;   // out [N, E] T, for backward
  Tensor experts;  // out [N, k] i32
  Tensor weights;  // out [N, k] T
  RouteParams params;
};
struct RouteBackward {
  Tensor scores;    // in  [N, E] T
  Tensor experts;   // in  [N, k] i32
  Tensor dweights;  // in  [N, k] T
  Grad dlogits;     // out [N, E] T, or bf16
  RouteParams params;
};

void route_forward(const Context& ctx, const RouteForward& a);
void route_backward(const Context& ctx, const RouteBackward& a);

// Checks shape and dtype of experts [N, k] i32 with 1 <= k <= E and, on the CPU outside plan mode,
// that every id is below E.
void check_experts(const Context& ctx, const Tensor& experts, int64_t N, int64_t E,
                   const char* label = "experts", SourceLine at = SourceLine::here());

}  // namespace sluice
