// kernels/kda/cuda_gradients_gate.cuh -- from logits to decays and factors of a chunk, and from dG
// back to the logits. A thread has two channels of half a block of rows.
#pragma once

#include "kernels/kda/cuda_gradients.cuh"

namespace sluice::cuda::kda_gpu {

constexpr float kLog2e = 1.4426950408889634f;

// What a thread needs of the parameters: its channels' biases, the logit of its token's beta.
// Loaded before there is something to wait for.
template <int D>
struct Parameters {
  float A, bias0, bias1, beta;

  __device__ Parameters(const Gradients& t, const Unit& u) {
    const int token = int(threadIdx.x) / (D / 16);
    const float* bias = t.gate.bias + u.hv * D + Column<D>::channel();
    A = exp2_flushed(kLog2e * t.gate.A_log[u.hv]), bias0 = bias[0], bias1 = bias[1];
    beta = __bfloat162float(t.beta[u.at.n0 + min(token, u.at.C - 1)][u.hv]);
  }
};

// The law of kda.h at logit z: log2 of the decay, not under kForgotten. slope: of the log decay.
template <bool bounded>
__device__ inline float gate_at(const Gate& gate, float A, float z, float& slope) {
  float g;
  if constexpr (bounded) {
    const float p = inverse_flushed(1 + exp2_flushed(-kLog2e * A * z));
    slope = A * gate.lower_bound * p * (1 - p);
    g = kLog2e * gate.lower_bound * p;
  } else {
    const float e = exp2_flushed(-kLog2e * fabsf(z)), u = 1 + e;  // what u rounds away: a factor
    const float log = u == 1 ? kLog2e * e : log2_flushed(u) * e * inverse_flushed(u - 1);
    slope = -A * (z < 0 ? e : 1) * inverse_flushed(u);
    g = -A * (kLog2e * fmaxf(z, 0) + log);
  }
  return fmaxf(g, kLog2e * kForgotten);
}

// Norms and write strengths; 0 for missing tokens. D / 16 threads a token.
template <int D>
__device__ void norms(const Gradients& t, const Unit& u, const Parameters<D>& p, Shared<D>& s) {
  constexpr int kEach = D / 16;
  const int i = int(threadIdx.x) / kEach, lane = int(threadIdx.x) % kEach;
  float qq = 0, kk = 0;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int at = swizzled<D>(i, part * D / 2 + lane * 8);
    const uint4 q = *reinterpret_cast<const uint4*>(s.q + at);
    const uint4 k = *reinterpret_cast<const uint4*>(s.k + at);
    const uint32_t qs[] = {q.x, q.y, q.z, q.w}, ks[] = {k.x, k.y, k.z, k.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 x = unpack(qs[e]), y = unpack(ks[e]);
      qq += x.x * x.x + x.y * x.y;
      kk += y.x * y.x + y.y * y.y;
    }
  }
  qq = warp_sum(qq, kEach), kk = warp_sum(kk, kEach);
  if (lane != 0) return;
  const bool there = i < u.at.C;
  s.q_norm[i] = there ? rsqrtf(qq + kEps) * rsqrtf(float(D)) : 0;
  s.k_norm[i] = there ? rsqrtf(kk + kEps) : 0;
  s.beta[i] = there ? t.gate.beta_max * sigmoid(p.beta) : 0;
}

// log2 of the decay from the middle of the block (after its row 7) to each row.
template <int D, bool bounded>
__device__ void exponents(const Gradients& t, const Unit& u, const Parameters<D>& p, Shared<D>& s) {
  float2 e[8];
  const int half = Column<D>::half(), d = Column<D>::channel();
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const float2 z = pair_at(s.w + Column<D>::at(r));
    const bool there = half * 8 + r < u.at.C;
    float slope;
    e[r].x = there ? gate_at<bounded>(t.gate, p.A, z.x + p.bias0, slope) : 0;
    e[r].y = there ? gate_at<bounded>(t.gate, p.A, z.y + p.bias1, slope) : 0;
  }
  float2 sum = e[0], range;
  if (half % 2) {
#pragma unroll
    for (int r = 1; r < 8; ++r) {
      sum.x += e[r].x, sum.y += e[r].y;
      e[r] = sum;
    }
    range = sum;
  } else {
    float2 after{0, 0};
#pragma unroll
    for (int r = 7; r >= 0; --r) {
      const float2 mine = e[r];
      e[r] = {-after.x, -after.y};
      if (r == 0) break;
      after.x += mine.x, after.y += mine.y;
    }
    range = after;
    sum.x += after.x, sum.y += after.y;
  }
  if (fminf(range.x, range.y) < -kLog2e * kSafeRange) s.unsafe[half / 2] = 1;
  put_pair(s.half + half * D + d, sum.x, sum.y);
#pragma unroll
  for (int r = 0; r < 8; ++r) put_pair(s.exponent + Column<D>::at(r), e[r].x, e[r].y);
}

// q, k and w times the decay from or to their anchor. That is the block's middle where it is safe,
// else the block's start for q and k, its end for w. q and k as they came go to X and E.
template <int D>
__device__ void factors(Shared<D>& s) {
  const int half = Column<D>::half(), d = Column<D>::channel(), block = half / 2;
  float2 from{0, 0}, to{0, 0};
  if (s.unsafe[block]) {
    from = pair_at(s.half + 2 * block * D + d);
    to = pair_at(s.half + (2 * block + 1) * D + d);
  }
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const int i = half * 8 + r, at = Column<D>::at(r);
    const float2 e = pair_at(s.exponent + at), q = pair_at(s.q + at), k = pair_at(s.k + at);
    const float x0 = exp2_flushed(from.x + e.x), x1 = exp2_flushed(from.y + e.y);
    const float y0 = exp2_flushed(to.x - e.x), y1 = exp2_flushed(to.y - e.y);
    put_pair(s.X + at, q.x, q.y), put_pair(s.E + at, k.x, k.y);
    const float q_norm = s.q_norm[i], k_norm = s.k_norm[i], beta = s.beta[i];
    const float k0 = k.x * k_norm, k1 = k.y * k_norm;
    put_pair(s.q + at, q.x * q_norm * x0, q.y * q_norm * x1);
    put_pair(s.k + at, k0 * x0, k1 * x1);
    put_pair(s.w + at, k0 * beta * y0, k1 * beta * y1);
  }
}

// across, start, end: a thread a channel and block. Results may be denormal: next to them are
// factors up to e^41.
template <int D>
__device__ void decays_of_blocks(Shared<D>& s) {
  const int d = int(threadIdx.x) % D, I = int(threadIdx.x) / D;
  float before = s.unsafe[I] ? 0 : s.half[2 * I * D + d];
  float after = s.unsafe[I] ? 0 : s.half[(2 * I + 1) * D + d];
#pragma unroll 1
  for (int J = I - 1; J >= 0; --J) {
    const float first = s.half[2 * J * D + d], second = s.half[(2 * J + 1) * D + d];
    s.across[(I * (I - 1) / 2 + J) * D + d] = exp2f(before + (s.unsafe[J] ? 0 : second));
    before += first + second;
  }
  s.start[I * D + d] = exp2f(before);
#pragma unroll 1
  for (int J = 2 * I + 2; J < 8; ++J) after += s.half[J * D + d];
  s.end[I * D + d] = exp2f(after);
}

// One token and channel: dy of the gate's logit z; dA gets its part of dA_log. Where e^g is 0 in
// f32 what the sum in dg holds is rounding.
template <bool bounded>
__device__ inline float logit_gradient(const Gate& gate, float A, float z, float dg, float& dA) {
  float slope;
  const float g = gate_at<bounded>(gate, A, z, slope);
  if (g < -104 * kLog2e) dg = 0;
  const float dy = slope * dg;
  if constexpr (bounded)
    dA += dy == 0 ? 0 : dy * z;  // not 0 * infinity
  else
    dA += g * (1 / kLog2e) * dg;
  return dy;
}

// Sums of eight rows of dG, for those before them.
template <int D>
__device__ void sum_halves(Shared<D>& s) {
  const int half = Column<D>::half(), d = Column<D>::channel();
  float2 sum{0, 0};
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const float2 dG = pair_at(s.exponent + Column<D>::at(r));
    sum.x += dG.x, sum.y += dG.y;
  }
  put_pair(s.half + half * D + d, sum.x, sum.y);
}

// Two channels of eight tokens, again.
template <int D>
__device__ void load_logits(const Gradients& t, const Unit& u, uint32_t (&logits)[8]) {
  const int first = Column<D>::half() * 8;
  const bf16* from = t.g[u.at.n0 + first] + u.hv * D + Column<D>::channel();
#pragma unroll
  for (int r = 0; r < 8; ++r, from += t.g.stride)
    logits[r] = first + r < u.at.C ? *reinterpret_cast<const uint32_t*>(from) : 0;
}

// dg = the reverse sum of dG; through the gate; parts of its parameters' gradients.
template <int D, bool bounded>
__device__ void gate_backward(const Gradients& t, const Unit& u, const Parameters<D>& p,
                              const uint32_t (&logits)[8], Shared<D>& s) {
  const int half = Column<D>::half(), d = Column<D>::channel();
  float2 dg = pair_at(s.last + d), dbias{0, 0};
  for (int J = 0; J < 4; ++J) {
    const float2 x = pair_at(s.last_parts + J * D + d);
    dg.x += x.x, dg.y += x.y;
  }
#pragma unroll 1
  for (int J = 7; J > half; --J) {
    const float2 x = pair_at(s.half + J * D + d);
    dg.x += x.x, dg.y += x.y;
  }
  bf16* to = t.dg[u.at.n0 + half * 8] + u.hv * D + d;
  float dA = 0;
#pragma unroll
  for (int r = 7; r >= 0; --r) {
    const float2 dG = pair_at(s.exponent + Column<D>::at(r)), z = unpack(logits[r]);
    dg.x += dG.x, dg.y += dG.y;
    const bool there = half * 8 + r < u.at.C;
    const float dg0 = there ? dg.x : 0, dg1 = there ? dg.y : 0;
    float y0 = logit_gradient<bounded>(t.gate, p.A, z.x + p.bias0, dg0, dA);
    float y1 = logit_gradient<bounded>(t.gate, p.A, z.y + p.bias1, dg1, dA);
    dbias.x += y0, dbias.y += y1;
    bf16* out = to + r * t.dg.stride;
    if (t.add_dg && there) {
      const float2 old = pair_at(out);
      y0 += old.x, y1 += old.y;
    }
    if (there) put_pair(out, y0, y1);
  }
  put_pair(s.dbias + half * D + d, dbias.x, dbias.y);
  dA = warp_sum(dA);
  if (threadIdx.x % 32 == 0) s.dA[threadIdx.x / 32] = dA;
}

// ddt_bias [D] and dA_log of this chunk.
template <int D>
__device__ void store_parts(const Shared<D>& s, float* part) {
  if (threadIdx.x > D) return;
  float sum = 0;
  if (threadIdx.x < D)
    for (int J = 0; J < 8; ++J) sum += s.dbias[J * D + threadIdx.x];
  else
    for (int w = 0; w < Shared<D>::kThreads / 32; ++w) sum += s.dA[w];
  part[threadIdx.x] = sum;
}

}  // namespace sluice::cuda::kda_gpu
