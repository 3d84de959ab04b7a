// kernels/kda/cuda_gradients.cuh -- the products of cuda_gradients.cu: a, r and c of one chunk and
// value head.
#pragma once

#include "kernels/kda/cuda.cuh"

namespace sluice::cuda::kda_gpu {

constexpr int kGradientThreads = 512;

struct Gradients {
  Rows q, k, g, beta, d_o;
  Rows dq, dk, dg, dbeta;
  int add_dq, add_dk, add_dg, add_dbeta;
  Gate gate;
  int H, HV;
};

template <int D>
struct Shared {
  static constexpr int kPitch = D + 8;
  float G[kC * Decay<D>::kPitch], total[4 * D], across[16 * D];  // across: e^{between(from, to)}
  float q_norm[kC], k_norm[kC], beta[kC], diagonal[kC];          // diagonal of N
  float last[D], last_parts[4 * D];                              // what row 63 of dG gets on top
  float dbeta[4 * kC];  // k . c, by quarter of the channels
  int unsafe[4];
  bf16 q_raw[kC * kPitch], k_raw[kC * kPitch];
  bf16 N[kC * kScorePitch], M[kC * kScorePitch];  // strictly lower
  union {
    struct {
      bf16 S[D * kPitch], D_state[D * kPitch], d_o[kC * kPitch], X[kC * kPitch], E[kC * kPitch];
    } in;
    struct {  // q, k times the decay since their block began, w times that to its block's end
      bf16 q[kC * kPitch], k[kC * kPitch], w[kC * kPitch];
    } factor;
    struct {
      float dG[kC * Decay<D>::kPitch], dq[kC * Decay<D>::kPitch], dk[kC * Decay<D>::kPitch];
    } out;
  };

  __device__ float across_at(int from, int to, int d) const {
    return across[(from * 4 + to - 1) * D + d];
  }
  __device__ float q(int i, int d) const {
    return __bfloat162float(q_raw[i * kPitch + d]) * q_norm[i];
  }
  __device__ float k(int i, int d) const {
    return __bfloat162float(k_raw[i * kPitch + d]) * k_norm[i];
  }
};

// A warp's part of a, r, c: rows 16 (warp % 4) .., channels D / 4 (warp / 4) ..
template <int D>
struct Sums {
  static constexpr int kTiles = D / 32;
  float a[kTiles][4], r[kTiles][4], c[kTiles][4], dG[kTiles][4];

  __device__ static int block() { return int(threadIdx.x) / 32 % 4; }
  __device__ static int part() { return int(threadIdx.x) / 128; }
  __device__ static int row(int e) { return block() * 16 + int(threadIdx.x) % 32 / 4 + e / 2 * 8; }
  __device__ static int channel(int tile, int e) {
    return part() * (D / 4) + tile * 8 + int(threadIdx.x) % 4 * 2 + e % 2;
  }
};

__device__ inline float rounded(float x) {
  return __bfloat162float(__float2bfloat16(x));
}

template <int D>
__device__ void load_matrix(bf16* to, const bf16* from, int64_t stride, int rows, int there) {
  for (int e = threadIdx.x; e < rows * D / 8; e += kGradientThreads) {
    const int i = e / (D / 8), column = e % (D / 8) * 8;
    copy_16_bytes(to + i * (D + 8) + column, from + min(i, there - 1) * stride + column, i < there);
  }
}
template <int D>
__device__ void load_states(const Gradients& t, const Memory& m, const BackwardMemory& b,
                            ChunkAt at, int64_t unit, int hv, Shared<D>& s) {
  load_matrix<D>(s.in.S, m.S + unit * D * D, D, D, D);
  load_matrix<D>(s.in.D_state, b.D + unit * D * D, D, D, D);
  load_matrix<D>(s.in.d_o, t.d_o[at.n0] + hv * D, t.d_o.stride, kC, at.C);
  load_matrix<D>(s.in.X, b.X + unit * kC * D, D, kC, kC);
  load_matrix<D>(s.in.E, m.E + unit * kC * D, D, kC, kC);
}
template <int D>
__device__ void load_raw(const Gradients& t, ChunkAt at, int h, Shared<D>& s) {
  load_matrix<D>(s.q_raw, t.q[at.n0] + h * D, t.q.stride, kC, at.C);
  load_matrix<D>(s.k_raw, t.k[at.n0] + h * D, t.k.stride, kC, at.C);
}

// The decays of whole blocks, once instead of in every tile.
template <int D>
__device__ void load_across(Shared<D>& s, Decay<D> decay) {
#pragma unroll 1
  for (int e = threadIdx.x; e < 16 * D; e += kGradientThreads)
    s.across[e] = __expf(decay.between(e / D / 4, e / D % 4 + 1, e % D));
}

// a = dO S^T, r = X S^T, c = E D^T; N and M into shared memory; last = rowsum(S D).
template <int D>
__device__ void through_states(Sums<D>& sum, Shared<D>& s) {
  constexpr int kPitch = Shared<D>::kPitch;
  const int block = sum.block(), part = sum.part(), rows = block * 16 * kPitch;
  float n[2][4] = {}, m[2][4] = {};
#pragma unroll 2
  for (int v = 0; v < D; v += 16) {
    uint32_t o[4], x[4], e[4], b[4];
    load_a(o, s.in.d_o + rows + v, kPitch);
    load_a(x, s.in.X + rows + v, kPitch);
    load_a(e, s.in.E + rows + v, kPitch);
#pragma unroll
    for (int j = 0; j < sum.kTiles; j += 2) {
      const int at = (part * (D / 4) + j * 8) * kPitch + v;
      load_b_transposed(b, s.in.S + at, kPitch);
      mma(sum.a[j], o, b[0], b[1]), mma(sum.a[j + 1], o, b[2], b[3]);
      mma(sum.r[j], x, b[0], b[1]), mma(sum.r[j + 1], x, b[2], b[3]);
      load_b_transposed(b, s.in.D_state + at, kPitch);
      mma(sum.c[j], e, b[0], b[1]), mma(sum.c[j + 1], e, b[2], b[3]);
    }
    load_b_transposed(b, s.in.E + part * 16 * kPitch + v, kPitch);
    mma(n[0], o, b[0], b[1]), mma(n[1], o, b[2], b[3]);
    mma(m[0], x, b[0], b[1]), mma(m[1], x, b[2], b[3]);
  }
  for (int j = 0; j < 2; ++j)
    for (int e = 0; e < 4; ++e) {
      const int row = sum.row(e), column = part * 16 + j * 8 + int(threadIdx.x) % 4 * 2 + e % 2;
      s.N[row * kScorePitch + column] = __float2bfloat16(column < row ? n[j][e] : 0);
      s.M[row * kScorePitch + column] = __float2bfloat16(column < row ? -m[j][e] : 0);
      if (column == row) s.diagonal[row] = n[j][e];
    }
  if (threadIdx.x < D) {
    float dot = 0;
    for (int v = 0; v < D; v += 8) {
      const uint4 x = *reinterpret_cast<const uint4*>(s.in.S + threadIdx.x * kPitch + v);
      const uint4 y = *reinterpret_cast<const uint4*>(s.in.D_state + threadIdx.x * kPitch + v);
      const uint32_t xs[] = {x.x, x.y, x.z, x.w}, ys[] = {y.x, y.y, y.z, y.w};
      for (int e = 0; e < 4; ++e) {
        const float2 p = unpack(xs[e]), q = unpack(ys[e]);
        dot += p.x * q.x + p.y * q.y;
      }
    }
    s.last[threadIdx.x] = dot;
  }
}

// a, r, c so far get their decay to the start or end of their block of rows; last its gamma, and
// what c brings: sum over rows of w e^{G_C - G} (E D^T).
template <int D>
__device__ void through_decay(Sums<D>& sum, Shared<D>& s, Decay<D> decay, const float* gamma) {
  const int block = sum.block();
#pragma unroll
  for (int j = 0; j < sum.kTiles; ++j)
    for (int x = 0; x < 2; ++x) {
      const int d = sum.channel(j, x);
      const float before = block == 0 ? 1 : s.across_at(0, block, d);
      const float after = block == 3 ? 1 : s.across_at(block + 1, 4, d);
      float last = 0;
      for (int e = x; e < 4; e += 2) {
        const int i = sum.row(e);
        sum.a[j][e] *= before, sum.r[j][e] *= -before, sum.c[j][e] *= after;
        last += rounded(s.k(i, d) * s.beta[i] * __expf(decay.rest(i, d))) * sum.c[j][e];
      }
      for (int lanes = 4; lanes < 32; lanes *= 2) last += __shfl_xor_sync(~0u, last, lanes);
      if (threadIdx.x % 32 < 4) s.last_parts[block * D + d] = last;
    }
  if (threadIdx.x < D) s.last[threadIdx.x] *= gamma[threadIdx.x];
}

template <int D>
__device__ void make_factors(Shared<D>& s, Decay<D> decay) {
  const int d = threadIdx.x % D;
#pragma unroll 4
  for (int i = threadIdx.x / D; i < kC; i += kGradientThreads / D) {
    const float x = __expf(decay.at(i, d)), y = __expf(decay.rest(i, d)), k = s.k(i, d);
    const int at = i * Shared<D>::kPitch + d;
    s.factor.q[at] = __float2bfloat16(s.q(i, d) * x);
    s.factor.k[at] = __float2bfloat16(k * x);
    s.factor.w[at] = __float2bfloat16(k * s.beta[i] * y);
  }
}

// Factors of rows 16 I .. as two tiles of b, channels d .., times the decay of blocks from .. to.
template <int D>
__device__ void load_factor(uint32_t (&b)[4], const bf16* factor, int I, int d, const Shared<D>& s,
                            int from, int to) {
  load_b(b, factor + I * 16 * Shared<D>::kPitch + d, Shared<D>::kPitch);
  if (from >= to) return;
  for (int tile = 0; tile < 2; ++tile) {
    const float t = s.across_at(from, to, d + tile * 8 + int(threadIdx.x) % 32 / 4);
    for (int r = 2 * tile; r < 2 * tile + 2; ++r) {
      const float2 x = unpack(b[r]);
      b[r] = pack(x.x * t, x.y * t);
    }
  }
}

// Pairs of different blocks; then a, r, c get the decay inside their own block.
//
// A pair adds to dG at its row and takes the same away at its column, and the sum over later rows
// has both: dG is made of the factors as the products saw them, rounded, so that what should cancel
// does.
template <int D>
__device__ void squares(Sums<D>& sum, const Shared<D>& s, Decay<D> decay) {
  const int mine = sum.block();
#pragma unroll 1
  for (int other = 0; other < 4; ++other) {
    if (other == mine) continue;
    uint32_t n[4], m[4], b[4];
    const int at = (max(mine, other) * kScorePitch + min(mine, other)) * 16;
    const bool below = other < mine;  // `other` has the columns of N and M
    if (below)
      load_a(n, s.N + at, kScorePitch), load_a(m, s.M + at, kScorePitch);
    else
      load_a_transposed(n, s.N + at, kScorePitch), load_a_transposed(m, s.M + at, kScorePitch);
#pragma unroll
    for (int j = 0; j < sum.kTiles; j += 2) {
      const int d = sum.part() * (D / 4) + j * 8;
      const int from = min(mine, other) + 1, to = max(mine, other);
      if (below) {
        load_factor(b, s.factor.w, other, d, s, from, to);
        mma(sum.a[j], n, b[0], b[1]), mma(sum.a[j + 1], n, b[2], b[3]);
        mma(sum.r[j], m, b[0], b[1]), mma(sum.r[j + 1], m, b[2], b[3]);
      } else {
        load_factor(b, s.factor.q, other, d, s, from, to);
        mma(sum.c[j], n, b[0], b[1]), mma(sum.c[j + 1], n, b[2], b[3]);
        load_factor(b, s.factor.k, other, d, s, from, to);
        mma(sum.c[j], m, b[0], b[1]), mma(sum.c[j + 1], m, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < sum.kTiles; ++j)
    for (int e = 0; e < 4; ++e) {
      const int i = sum.row(e), d = sum.channel(j, e);
      const float x = __expf(decay.at(i, d)), y = __expf(decay.rest(i, d)), k = s.k(i, d);
      sum.dG[j][e] = rounded(s.q(i, d) * x) * sum.a[j][e] + rounded(k * x) * sum.r[j][e] -
                     rounded(k * s.beta[i] * y) * sum.c[j][e];
      sum.a[j][e] *= x, sum.r[j][e] *= x, sum.c[j][e] *= y;
    }
}

// Pairs of one block, each with its own exponential: for any gate.
template <int D>
__device__ void exact_triangle(Sums<D>& sum, const Shared<D>& s, Decay<D> decay) {
  const int begin = sum.block() * 16;
#pragma unroll
  for (int j = 0; j < sum.kTiles; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = sum.row(e), d = sum.channel(j, e);
      const float here = decay.at(i, d);
      float a = 0, r = 0, c = 0;
#pragma unroll 1
      for (int o = begin; o < begin + 16; ++o) {
        const float between = o < i ? here - decay.at(o, d) : decay.at(o, d) - here;
        const float x = o == i ? 0 : __expf(between), w = s.k(o, d) * s.beta[o] * x;
        const int at = i * kScorePitch + o, across = o * kScorePitch + i;  // 0 above the diagonal
        a += __bfloat162float(s.N[at]) * w;
        r += __bfloat162float(s.M[at]) * w;
        c += x * (__bfloat162float(s.N[across]) * s.q(o, d) +
                  __bfloat162float(s.M[across]) * s.k(o, d));
      }
      sum.dG[j][e] += s.q(i, d) * a + s.k(i, d) * (r - s.beta[i] * c);
      sum.a[j][e] += a, sum.r[j][e] += r, sum.c[j][e] += c;
    }
}

template <int D>
__device__ void triangles(Sums<D>& sum, const Shared<D>& s, Decay<D> decay) {
  const int block = sum.block(), lane = threadIdx.x % 32, at = block * 16 * (kScorePitch + 1);
  if (s.unsafe[block]) return exact_triangle(sum, s, decay);
  uint32_t n[4], m[4], nt[4], mt[4];
  load_a(n, s.N + at, kScorePitch), load_a(m, s.M + at, kScorePitch);
  load_a_transposed(nt, s.N + at, kScorePitch), load_a_transposed(mt, s.M + at, kScorePitch);
#pragma unroll
  for (int j = 0; j < sum.kTiles; ++j) {
    uint32_t w[2], q[2], k[2];
    const int d = sum.part() * (D / 4) + j * 8 + lane / 4;
    for (int r = 0; r < 2; ++r) {
      float ws[2], qs[2], ks[2];
      for (int e = 0; e < 2; ++e) {
        const int i = block * 16 + lane % 4 * 2 + r * 8 + e;
        const float x = decay.from_middle(i, d), up = __expf(x), down = __expf(-x);
        const float key = s.k(i, d);
        ws[e] = key * s.beta[i] * down, qs[e] = s.q(i, d) * up, ks[e] = key * up;
      }
      w[r] = pack(ws[0], ws[1]), q[r] = pack(qs[0], qs[1]), k[r] = pack(ks[0], ks[1]);
    }
    float a[4] = {}, r[4] = {}, c[4] = {};
    mma(a, n, w[0], w[1]);
    mma(r, m, w[0], w[1]);
    mma(c, nt, q[0], q[1]);
    mma(c, mt, k[0], k[1]);
    for (int e = 0; e < 4; ++e) {
      const int i = sum.row(e), channel = sum.channel(j, e);
      const float x = decay.from_middle(i, channel), up = __expf(x), down = __expf(-x);
      const float key = s.k(i, channel);
      sum.dG[j][e] += rounded(s.q(i, channel) * up) * a[e] + rounded(key * up) * r[e] -
                      rounded(key * s.beta[i] * down) * c[e];
      sum.a[j][e] += a[e] * up, sum.r[j][e] += r[e] * up, sum.c[j][e] += c[e] * down;
    }
  }
}

// dG as it is, the diagonal of N into the others, then what becomes of dq, dk (before the norms)
// and dbeta. dq and dk are summed over the value heads of a group in `keys` [2, 64, D], if there
// are several.
template <int D>
__device__ void store_sums(const Sums<D>& sum, Shared<D>& s, float* keys, bool first, bool last) {
  float dbeta[2] = {};
#pragma unroll
  for (int j = 0; j < sum.kTiles; ++j)
    for (int e = 0; e < 4; ++e) {
      const int i = sum.row(e), d = sum.channel(j, e), at = i * Decay<D>::kPitch + d;
      const float q = s.q(i, d), k = s.k(i, d), w = k * s.beta[i];
      s.out.dG[at] = sum.dG[j][e];
      const float c = sum.c[j][e] + s.diagonal[i] * q;
      float dq = sum.a[j][e] + s.diagonal[i] * w, dk = sum.r[j][e] + s.beta[i] * c;
      dbeta[e / 2] += k * c;
      if (!first) dq += keys[i * D + d], dk += keys[(kC + i) * D + d];
      if (!last) keys[i * D + d] = dq, keys[(kC + i) * D + d] = dk;
      s.out.dq[at] = dq, s.out.dk[at] = dk;
    }
  for (int x = 0; x < 2; ++x) {
    for (int lanes = 1; lanes < 4; lanes *= 2) dbeta[x] += __shfl_xor_sync(~0u, dbeta[x], lanes);
    if (threadIdx.x % 4 == 0) s.dbeta[sum.part() * kC + sum.row(2 * x)] = dbeta[x];
  }
}

}  // namespace sluice::cuda::kda_gpu
