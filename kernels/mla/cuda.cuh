// kernels/mla/cuda.cuh -- tiles of 64 queries or keys of one head in shared memory, and who sees
// whom.
#pragma once

#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/mla/sizes.h"

namespace sluice::cuda::mla_gpu {

constexpr int kTile = 64;
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// The keys that a query sees, both ends included. Both rise with the query, also across documents.
struct Span {
  int first, last;
};

struct Problem {
  Rows q, kv, k_rope;  // q and k_rope turned, if they are rotated
  const Span* span;    // [Nq]
  const float* turn;   // [Nk, rope], or null
  int Nq, Nk, H, nope, rope, V;
  float scale;

  __device__ int width() const { return nope + rope; }
};

struct Inputs {
  Tensor q, k_rope, cu_q, cu_k;
};
// Fill span; turn, q and k_rope.
void find_spans(const Context& ctx, const Tensor& cu_q, const Tensor& cu_k, const Tensor& span);
void turn_inputs(const Context& ctx, const mla::Sizes& s, const Inputs& in, double theta,
                 const mla::CudaScratch& memory);

// The pair (x, y) by an angle of cosine c and sine s; -s turns a cotangent back.
__device__ inline void turn_pair(float& x, float& y, float c, float s) {
  const float u = x, v = y;
  x = u * c - v * s;
  y = u * s + v * c;
}

// The largest of many floats in any order is one number: as integers, since that is what atomics
// know.
__device__ inline void raise(float* to, float x) {
  if (x >= 0)
    atomicMax(reinterpret_cast<int*>(to), __float_as_int(x));
  else
    atomicMin(reinterpret_cast<unsigned*>(to), __float_as_uint(x));
}

// What the kernels read, made ready.
template <class Args>
Problem problem_of(const Context& ctx, const Args& a, const mla::CudaScratch& memory) {
  const mla::Sizes s = mla::sizes_of(a);
  SLUICE_CHECK(s.nope % 8 == 0 && s.rope % 8 == 0 && s.V % 8 == 0, "nope is ", s.nope, ", rope ",
               s.rope, ", V ", s.V, ", expected multiples of 8");
  SLUICE_CHECK(rows_aligned({a.q, a.kv, a.k_rope}),
               "rows of q, kv or k_rope do not start at multiples of 16 bytes");
  const bool rotated = a.rope_theta > 0;
  find_spans(ctx, a.cu_seqlens_q, a.cu_seqlens_k, memory.span);
  if (rotated)
    turn_inputs(ctx, s, {a.q, a.k_rope, a.cu_seqlens_q, a.cu_seqlens_k}, a.rope_theta, memory);
  return {rows_of(rotated ? memory.q : a.q),
          rows_of(a.kv),
          s.rope > 0 ? rows_of(rotated ? memory.k_rope : a.k_rope) : Rows{nullptr, 0},
          reinterpret_cast<const Span*>(memory.span.data),
          rotated ? memory.turn.as<float>() : nullptr,
          int(s.Nq),
          int(s.Nk),
          int(s.H),
          int(s.nope),
          int(s.rope),
          int(s.V),
          float(1 / std::sqrt(double(s.nope + s.rope)))};
}

// Calls body<QK, V> with the smallest tile widths that hold the problem; what is wider than the
// problem is zeros.
template <class Body>
void for_widths(const mla::Sizes& s, Body body) {
  const int64_t qk = s.nope + s.rope;
  if (qk <= 64 && s.V <= 64) return body.template operator()<64, 64>();
  if (qk <= 128 && s.V <= 128) return body.template operator()<128, 128>();
  SLUICE_CHECK(qk <= 192 && s.V <= 128, "nope + rope is ", qk, ", V ", s.V,
               ", expected at most 192 and 128");
  body.template operator()<192, 128>();
}

template <int W>
constexpr int kPitch = W + 8;  // bf16; pads against bank conflicts

// Rows n0 .. n0 + 63 of a tile [64, W]: of row n and column c, 8 columns from source(n, c), or
// zeros where that is null or n is beyond `end`.
template <int W, int threads, class Source>
__device__ void load_tile(bf16* to, int n0, int end, Source source) {
  for (int i = threadIdx.x; i < kTile * (W / 8); i += threads) {
    const int r = i / (W / 8), c = i % (W / 8) * 8;
    const bf16* from = n0 + r < end ? source(n0 + r, c) : nullptr;
    copy_16_bytes(to + r * kPitch<W> + c, from, from != nullptr);
  }
}
template <int W, int threads>
__device__ void load_queries(bf16* to, const Problem& p, int h, int n0) {
  load_tile<W, threads>(to, n0, p.Nq, [&](int n, int c) {
    return c < p.width() ? p.q[n] + h * p.width() + c : nullptr;
  });
}
template <int W, int threads>
__device__ void load_keys(bf16* to, const Problem& p, int h, int n0, int end) {
  load_tile<W, threads>(to, n0, end, [&](int n, int c) -> const bf16* {
    if (c < p.nope) return p.kv[n] + h * (p.nope + p.V) + c;
    return c < p.width() ? p.k_rope[n] + (c - p.nope) : nullptr;
  });
}
template <int W, int threads>
__device__ void load_values(bf16* to, const Problem& p, int h, int n0, int end) {
  load_tile<W, threads>(to, n0, end, [&](int n, int c) {
    return c < p.V ? p.kv[n] + h * (p.nope + p.V) + p.nope + c : nullptr;
  });
}
// Of o or its gradient, [Nq, H, V].
template <int W, int threads>
__device__ void load_outputs(bf16* to, const Problem& p, Rows o, int h, int n0) {
  load_tile<W, threads>(to, n0, p.Nq,
                        [&](int n, int c) { return c < p.V ? o[n] + h * p.V + c : nullptr; });
}

// c [16, 8 * tiles] += a [16, K] b^T: a at rows of pitch K + 8, b stored [8 * tiles, K] likewise.
template <int K, int tiles>
__device__ void product_bt(float (&c)[tiles][4], const bf16* a, const bf16* b) {
#pragma unroll
  for (int k = 0; k < K; k += 16) {
    uint32_t ar[4];
    load_a(ar, a + k, kPitch<K>);
#pragma unroll
    for (int t = 0; t < tiles; t += 2) {
      uint32_t br[4];
      load_b_transposed(br, b + t * 8 * kPitch<K> + k, kPitch<K>);
      mma(c[t], ar, br[0], br[1]);
      mma(c[t + 1], ar, br[2], br[3]);
    }
  }
}
// c [16, 8 * tiles] += a [16, 64] b: a at rows of pitch 72, b stored [64, ..] at rows of pitch ld.
template <int tiles>
__device__ void product_64(float (&c)[tiles][4], const bf16* a, const bf16* b, int ld) {
#pragma unroll
  for (int k = 0; k < kTile; k += 16) {
    uint32_t ar[4];
    load_a(ar, a + k, kPitch<kTile>);
#pragma unroll
    for (int t = 0; t < tiles; t += 2) {
      uint32_t br[4];
      load_b(br, b + k * ld + t * 8, ld);
      mma(c[t], ar, br[0], br[1]);
      mma(c[t + 1], ar, br[2], br[3]);
    }
  }
}

template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  SLUICE_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace sluice::cuda::mla_gpu
