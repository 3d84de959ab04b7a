// kernels/mla/mla.h -- the attention core of multi-head latent attention: causal softmax over
// packed documents, with a key slice that all heads share.
//
//   s_ij = (q_n,i k_n,j + q_r,i k_r,j) / sqrt(nope + rope),   j <= position of query i in its
//   document o_i  = sum_j softmax_j(s_i) v_j,     lse_i = log sum_j exp s_ij
//
// With rope_theta > 0, q_r and k_r are rotated first: pair (2p, 2p+1) of a token at position t by
// the angle t * theta^(-2p / rope); positions count from each document's first key. 0: NoPE, used
// raw. Backward: p_ij = exp(s_ij - lse_i), ds_ij = p_ij (d_o_i v_j - d_o_i o_i). Never T x T beyond
// a tile. Source: arXiv:2405.04434. Dims: Nq queries, Nk keys, H heads, V value dim.
// T is f32 or f64 on the CPU, bf16 on CUDA (columns multiples of 8, nope + rope up to 192, V up to
// 128); S, of sums, is f32 for bf16, else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct MlaForward {
  Tensor q;       // in  [Nq, H, nope + rope] T, per head nope columns first
  Tensor kv;      // in  [Nk, H, nope + V] T, per head key columns, then values
  Tensor k_rope;  // in  [Nk, rope] T, of all heads; left out if rope is 0. Rows may be strided
  Tensor cu_seqlens_q;  // in  [documents + 1] i32
  Tensor
      cu_seqlens_k;  // in  [documents + 1] i32: at least as many keys as queries in each document,
                     //     the queries being its last tokens
  Tensor o;          // out [Nq, H, V] T
  Tensor lse;        // out [Nq, H] S, kept for backward
  Tensor max_logit{};  // in, out [H] f32, optional: raised to the head's largest s_ij
  double rope_theta = 0;
  int64_t longest = 0;  // no document has more keys; 0: not known
};
struct MlaBackward {
  Tensor q, kv, k_rope, cu_seqlens_q, cu_seqlens_k, o, lse;  // as in forward
  Tensor d_o;                                                // in  [Nq, H, V] T
  Grad dq, dkv;                                              // out as q, kv
  Grad dk_rope;                                              // out as k_rope, heads summed in order
  double rope_theta = 0;
  int64_t longest = 0;
};

void mla_forward(const Context& ctx, const MlaForward& a);
void mla_backward(const Context& ctx, const MlaBackward& a);

}  // namespace sluice
