// kernels/mla_cache/mla_cache.h -- multi-head latent attention of new tokens against cached
// latents: generation, forward only.
//
// The cache keeps c (the normalised latent) and k_r of every token; keys and values are
//   k_n,j = W_UK,h c_j     v_j = W_UV,h c_j
//   s_ij = (q_n,i k_n,j + q_r,i k_r,j) / sqrt(nope + rope),  j <= i     o_i = sum_j softmax_j(s_i)
//   v_j
// mla_prefill makes k_n and v of a tile of tokens at a time. mla_decode never makes them:
//   q_n (W_UK c_j) = (W_UK^T q_n) c_j           sum_j p_j W_UV c_j = W_UV sum_j p_j c_j
// Both compute the same function (README.md has when which is cheaper).
//
// With rope_theta > 0, k_r is rotated by its token's position as it is stored: the position never
// changes, so once is enough. q_r is rotated in the attention. As in kernels/mla, whose definition
// of the rotation this is. Source: arXiv:2405.04434, section 2.1. Dims: S slots, each a sequence
// with room for T tokens; N rows of this call, slot s having rows cu_seqlens[s] .. cu_seqlens[s+1]
// (none if it takes no part), after the past[s] tokens that it holds; H heads, r latent, V value
// dim.
// T is f32 or f64 on the CPU, bf16 on CUDA (nope, rope, r and V multiples of 8, up to 128, 64, 512
// and 128; rows start at multiples of 16 bytes).
#pragma once

#include <span>

#include "kernels/tensor/context.h"

namespace sluice {

// cu_seqlens and past once more, where the host can read them. It cuts a prefill on CUDA by them.
struct SlotsOnHost {
  std::span<const int32_t> cu_seqlens, past;  // [S + 1], [S]
};

// Stores the new tokens of each slot behind the ones it holds.
struct LatentAppend {
  Tensor c;           // in  [N, r] T, rows may be strided
  Tensor k_rope;      // in  [N, rope] T, rows may be strided
  Tensor cu_seqlens;  // in  [S + 1] i32
  Tensor past;        // in  [S] i32
  Tensor latents;     // out [S, T, r + rope] T: rows past .. past + new of each slot
  double rope_theta = 0;
};
// To be called after latent_append of the same tokens.
struct MlaCached {
  Tensor q;           // in  [N, H, nope + rope] T, per head nope columns first
  Tensor latents;     // in  [S, T, r + rope] T
  Tensor w_kv_b;      // in  [H * (nope + V), r] T: per head the rows of W_UK, then those of W_UV
  Tensor cu_seqlens;  // in  [S + 1] i32
  Tensor past;        // in  [S] i32
  Tensor o;           // out [N, H, V] T
  double rope_theta = 0;
  SlotsOnHost on_host{};  // for mla_prefill on CUDA
};

void latent_append(const Context& ctx, const LatentAppend& a);
void mla_prefill(const Context& ctx, const MlaCached& a);
void mla_decode(const Context& ctx, const MlaCached& a);  // at most one row a slot

constexpr int64_t kMlaSplit = 256;  // keys that mla_decode takes at a time, counted from token 0
constexpr int64_t kMlaHeads = 8;    // heads that share one pass over the latents

}  // namespace sluice
