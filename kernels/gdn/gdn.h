// kernels/gdn/gdn.h -- linear attention with one forget gate a head: Gated DeltaNet, and Mamba2's
// recurrence, which writes without looking at what the state predicts.
//
// Per document and value head, state S [K, V], from zero or from initial_state:
//   qn = q / sqrt(|q|^2 + 1e-6),  kn likewise;  step = softplus(z + dt_bias);  g = -exp(A_log) step
//   delta_rule:  b = beta_max * sigmoid(beta);   S <- e^g S;  S <- S + b kn (v - S^T kn)^T
//   without:     S <- e^g S + step kn v^T
//   o = K^-1/2 S^T qn
//
// Sources: Gated DeltaNet, arXiv:2412.06464; Mamba2, arXiv:2405.21060, whose C, B, x are q, k, v,
// but normalised as in the delta rule. Chunked form, backward and numerics in README.md.
// Dims:    N tokens, H query/key heads, HV value heads (a multiple of H: value head i reads query
//          head i / (HV / H)), K key dim, V value dim, documents = cu_seqlens.dim(0) - 1.
// Types:   T is f32 or f64 on the CPU. On the GPU tensors of tokens ([N, ..]) are bf16, parameters,
//          states and their gradients f32; K and V are multiples of 8 up to 256, K = V = 64 or 128
//          have kernels for tensor cores. Rows (dim 0) of [N, ..] tensors may be strided; for the
//          tensor cores those of q, k, v, o and their gradients start at multiples of 16 bytes.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct GdnParams {
  bool delta_rule = true;  // false: Mamba2; then there is no beta
  double beta_max = 1;     // of the delta rule: 1, or 2, which allows negative eigenvalues
};

struct GdnForward {
  Tensor q, k;           // in  [N, H, K]  T, before the L2 norm
  Tensor v;              // in  [N, HV, V] T
  Tensor g;              // in  [N, HV]    T, gate logits z
  Tensor beta;           // in  [N, HV]    T, logits; of the delta rule only
  Tensor A_log;          // in  [HV]       T
  Tensor dt_bias;        // in  [HV]       T
  Tensor cu_seqlens;     // in  [documents + 1] i32
  Tensor initial_state;  // in  [documents, HV, K, V] T, optional
  Tensor o;              // out [N, HV, V] T
  Tensor final_state;    // out [documents, HV, K, V] T, optional; may be initial_state's memory
  Tensor saved;          // out [gdn_saved_bytes()] u8, optional: left out when no backward follows
  GdnParams params;
};

struct GdnBackward {
  Tensor q, k, v, g, beta, A_log, dt_bias, cu_seqlens, initial_state, saved;  // as in forward
  Tensor d_o;                                                                 // in  [N, HV, V] T
  Tensor dfinal_state;    // in  [documents, HV, K, V] T, optional
  Grad dq, dk;            // out [N, H, K]
  Grad dv;                // out [N, HV, V]
  Grad dg, dbeta;         // out [N, HV]; dbeta of the delta rule only
  Grad dA_log, ddt_bias;  // out [HV]
  Grad dinitial_state;    // out [documents, HV, K, V], optional
  GdnParams params;
};

// What forward keeps for backward, from shapes alone; opaque, and private to back end and mode.
int64_t gdn_saved_bytes(const Context& ctx, const GdnForward& a);

void gdn_forward(const Context& ctx, const GdnForward& a);
void gdn_backward(const Context& ctx, const GdnBackward& a);

constexpr int64_t kGdnChunk = 64;
constexpr double kGdnNormEps = 1e-6;

}  // namespace sluice
