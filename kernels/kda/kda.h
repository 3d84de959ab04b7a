// kernels/kda/kda.h -- Kimi Delta Attention: a gated delta rule with one forget gate a channel.
//
// Per document and value head, state S [K, V], from zero or from initial_state:
//   qn = q / sqrt(|q|^2 + 1e-6),  kn likewise;  b = beta_max * sigmoid(beta)
//   g  = -exp(A_log) softplus(z + dt_bias)            GateLaw::softplus
//        lower_bound * sigmoid(exp(A_log) (z + dt_bias))      GateLaw::bounded
//   S <- diag(exp g) S;   S <- S + b kn (v - S^T kn)^T;   o = K^-1/2 S^T qn
//
// Source: Kimi Linear, arXiv:2510.26692; chunked form, backward and numerics in README.md.
// Dims:   N tokens, H query/key heads, HV value heads (a multiple of H: value head i reads query
// head
//         i / (HV / H)), K key dim, V value dim, documents = cu_seqlens.dim(0) - 1.
// Types:  T is f32 or f64 on the CPU. On the GPU tensors of tokens ([N, ..]) are bf16, parameters,
//         states and their gradients f32; K and V are multiples of 8 up to 256, K = V = 64 or 128
//         have kernels for tensor cores. Rows (dim 0) of [N, ..] tensors may be strided; for the
//         tensor cores they start at multiples of 16 bytes.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

enum class GateLaw : uint8_t { softplus, bounded };

struct KdaParams {
  GateLaw gate = GateLaw::softplus;
  double gate_lower_bound = -5;  // of the bounded law, below 0
  double beta_max = 1;           // 1, or 2: allows negative eigenvalues
};

struct KdaForward {
  Tensor q, k;           // in  [N, H, K]  T, before the L2 norm
  Tensor v;              // in  [N, HV, V] T
  Tensor g;              // in  [N, HV, K] T, gate logits z
  Tensor beta;           // in  [N, HV]    T, logits
  Tensor A_log;          // in  [HV]       T
  Tensor dt_bias;        // in  [HV, K]    T
  Tensor cu_seqlens;     // in  [documents + 1] i32
  Tensor initial_state;  // in  [documents, HV, K, V] T, optional
  Tensor o;              // out [N, HV, V] T
  Tensor final_state;    // out [documents, HV, K, V] T, optional; may be initial_state's memory
  Tensor saved;          // out [kda_saved_bytes()] u8, optional: left out when no backward follows
  KdaParams params;
  bool single = false;  // no document has more than one token, and nothing is saved: decoding
};

struct KdaBackward {
  Tensor q, k, v, g, beta, A_log, dt_bias, cu_seqlens, initial_state, saved;  // as in forward
  Tensor d_o;                                                                 // in  [N, HV, V] T
  Tensor dfinal_state;    // in  [documents, HV, K, V] T, optional
  Grad dq, dk;            // out [N, H, K]
  Grad dv, dg, dbeta;     // out [N, HV, V], [N, HV, K], [N, HV]
  Grad dA_log, ddt_bias;  // out [HV], [HV, K]
  Grad dinitial_state;    // out [documents, HV, K, V], optional
  KdaParams params;
};

// What forward keeps for backward, from shapes alone; opaque, and private to back end and mode.
int64_t kda_saved_bytes(const Context& ctx, const KdaForward& a);

void kda_forward(const Context& ctx, const KdaForward& a);
void kda_backward(const Context& ctx, const KdaBackward& a);

// The gate law: g of one channel, A = exp(A_log) and y = z + dt_bias. In f64, for checks and
// figures.
double kda_log_decay(const KdaParams& params, double A, double y);

constexpr int64_t kKdaChunk = 64;
constexpr double kKdaNormEps = 1e-6;

}  // namespace sluice
