// kernels/kda/cuda_gradients_products.cuh -- a, r and c of a chunk, and what they make.
//
// While they are summed they stand before their own decay, a = x a', r = x r', c = y c' with x the
// decay from q's anchor and y that to w's, so that every product is of the same factors and
//   dG = (q x) a' + (k x) r' - (w y) c'.
// A pair adds to dG at its row and takes the same away at its column, and the sum over later rows
// has both: dG is made of the factors as the products saw them, rounded, so that what should cancel
// does.
#pragma once

#include "kernels/kda/cuda_gradients.cuh"

namespace sluice::cuda::kda_gpu {

// N = tril(dO E^T) and M = -tril(X E^T), both without the diagonal, which N keeps elsewhere.
template <int D, int tiles>
__device__ void store_scores(const float (&n)[tiles][4], const float (&m)[tiles][4], Shared<D>& s) {
  using L = Sums<D>;
#pragma unroll
  for (int j = 0; j < tiles; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = L::row(half), column = (L::part() * tiles + j) * 8 + L::channel(0) % 8;
      const int at = swizzled<kC>(row, column);
      const float n0 = n[j][2 * half], n1 = n[j][2 * half + 1];
      const bool below0 = column < row, below1 = column + 1 < row;
      put_pair(s.N + at, below0 ? n0 : 0, below1 ? n1 : 0);
      put_pair(s.M + at, below0 ? -m[j][2 * half] : 0, below1 ? -m[j][2 * half + 1] : 0);
      if (column == row) s.diagonal[row] = n0;
      if (column + 1 == row) s.diagonal[row] = n1;
    }
}

// a = dO S^T, r = X S^T, c = E D^T; N and M into shared memory.
template <int D>
__device__ void through_states(Sums<D>& sum, Shared<D>& s) {
  constexpr int kScoreTiles = 8 / Shared<D>::kParts;
  const int row = sum.block() * 16, part = sum.part();
  float n[kScoreTiles][4] = {}, m[kScoreTiles][4] = {};
#pragma unroll
  for (int v = 0; v < D; v += 16) {
    uint32_t o[4], x[4], e[4], b[4];
    tile_a<D>(o, s.d_o, row, v);
    tile_a<D>(x, s.X, row, v);
    tile_a<D>(e, s.E, row, v);
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      tile_b_transposed<D>(b, s.S, part * 32 + j * 8, v);
      mma(sum.a[j], o, b[0], b[1]), mma(sum.a[j + 1], o, b[2], b[3]);
      mma(sum.r[j], x, b[0], b[1]), mma(sum.r[j + 1], x, b[2], b[3]);
      tile_b_transposed<D>(b, s.D_state, part * 32 + j * 8, v);
      mma(sum.c[j], e, b[0], b[1]), mma(sum.c[j + 1], e, b[2], b[3]);
    }
#pragma unroll
    for (int j = 0; j < kScoreTiles; j += 2) {
      tile_b_transposed<D>(b, s.E, (part * kScoreTiles + j) * 8, v);
      mma(n[j], o, b[0], b[1]), mma(n[j + 1], o, b[2], b[3]);
      mma(m[j], x, b[0], b[1]), mma(m[j + 1], x, b[2], b[3]);
    }
  }
  store_scores<D, kScoreTiles>(n, m, s);
}

// last = gamma rowsum(S D): four threads a row.
template <int D>
__device__ void last_of_states(Shared<D>& s) {
  const int d = int(threadIdx.x) / 4, quarter = int(threadIdx.x) % 4;
  float dot = 0;
#pragma unroll 2
  for (int v = 0; v < D / 32; ++v) {
    const int at = swizzled<D>(d, quarter * 8 + (v ^ (d & 1)) * 32);  // banks
    const uint4 x = *reinterpret_cast<const uint4*>(s.S + at);
    const uint4 y = *reinterpret_cast<const uint4*>(s.D_state + at);
    const uint32_t xs[] = {x.x, x.y, x.z, x.w}, ys[] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 p = unpack(xs[e]), q = unpack(ys[e]);
      dot += p.x * q.x + p.y * q.y;
    }
  }
  dot = warp_sum(dot, 4);
  if (quarter != 0) return;
  float decay = 0;
#pragma unroll
  for (int J = 0; J < 8; ++J) decay += s.half[J * D + d];
  s.last[d] = dot * exp2_flushed(decay);
}

// a', r', c' of the states from their products; what c brings to last: the sum over rows of w c.
template <int D>
__device__ void decay_states(Sums<D>& sum, Shared<D>& s) {
  const int block = sum.block();
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int d = sum.channel(j);
    const float2 start = pair_at(s.start + block * D + d), end = pair_at(s.end + block * D + d);
    float2 last{0, 0};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 w = pair_at(s.w + sum.at(half, j));
      const int e = 2 * half;
      sum.a[j][e] *= start.x, sum.a[j][e + 1] *= start.y;
      sum.r[j][e] *= -start.x, sum.r[j][e + 1] *= -start.y;
      sum.c[j][e] *= end.x, sum.c[j][e + 1] *= end.y;
      last.x += w.x * sum.c[j][e], last.y += w.y * sum.c[j][e + 1];
    }
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) {
      last.x += __shfl_xor_sync(~0u, last.x, lanes);
      last.y += __shfl_xor_sync(~0u, last.y, lanes);
    }
    if (threadIdx.x % 32 < 4) put_pair(s.last_parts + block * D + d, last.x, last.y);
  }
}

__device__ inline void add_scaled(float (&to)[4], const float (&x)[4], float2 by) {
  to[0] += by.x * x[0], to[1] += by.y * x[1], to[2] += by.x * x[2], to[3] += by.y * x[3];
}

// Pairs of different blocks.
template <int D>
__device__ void squares(Sums<D>& sum, const Shared<D>& s) {
  const int mine = sum.block();
#pragma unroll 1
  for (int other = 0; other < 4; ++other) {
    if (other == mine) continue;
    uint32_t n[4], m[4], b[4];
    const int I = max(mine, other), J = min(mine, other);
    const float* across = s.across + (I * (I - 1) / 2 + J) * D;
    const bool below = other < mine;  // `other` has the columns of N and M
    if (below) {
      tile_a<kC>(n, s.N, I * 16, J * 16), tile_a<kC>(m, s.M, I * 16, J * 16);
    } else {
      tile_a_transposed<kC>(n, s.N, I * 16, J * 16);
      tile_a_transposed<kC>(m, s.M, I * 16, J * 16);
    }
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      float x[2][4] = {}, y[2][4] = {};
      const int d = sum.part() * 32 + j * 8;
      const float2 by0 = pair_at(across + sum.channel(j));
      const float2 by1 = pair_at(across + sum.channel(j + 1));
      if (below) {
        tile_b<D>(b, s.w, other * 16, d);
        mma(x[0], n, b[0], b[1]), mma(x[1], n, b[2], b[3]);
        mma(y[0], m, b[0], b[1]), mma(y[1], m, b[2], b[3]);
        add_scaled(sum.a[j], x[0], by0), add_scaled(sum.a[j + 1], x[1], by1);
        add_scaled(sum.r[j], y[0], by0), add_scaled(sum.r[j + 1], y[1], by1);
      } else {
        tile_b<D>(b, s.q, other * 16, d);
        mma(x[0], n, b[0], b[1]), mma(x[1], n, b[2], b[3]);
        tile_b<D>(b, s.k, other * 16, d);
        mma(x[0], m, b[0], b[1]), mma(x[1], m, b[2], b[3]);
        add_scaled(sum.c[j], x[0], by0), add_scaled(sum.c[j + 1], x[1], by1);
      }
    }
  }
}

// Pairs of one block, both anchored in its middle.
template <int D>
__device__ void triangles(Sums<D>& sum, const Shared<D>& s) {
  const int at = sum.block() * 16;
  uint32_t n[4], m[4], nt[4], mt[4], b[4];
  tile_a<kC>(n, s.N, at, at), tile_a<kC>(m, s.M, at, at);
  tile_a_transposed<kC>(nt, s.N, at, at), tile_a_transposed<kC>(mt, s.M, at, at);
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    const int d = sum.part() * 32 + j * 8;
    tile_b<D>(b, s.w, at, d);
    mma(sum.a[j], n, b[0], b[1]), mma(sum.a[j + 1], n, b[2], b[3]);
    mma(sum.r[j], m, b[0], b[1]), mma(sum.r[j + 1], m, b[2], b[3]);
    tile_b<D>(b, s.q, at, d);
    mma(sum.c[j], nt, b[0], b[1]), mma(sum.c[j + 1], nt, b[2], b[3]);
    tile_b<D>(b, s.k, at, d);
    mma(sum.c[j], mt, b[0], b[1]), mma(sum.c[j + 1], mt, b[2], b[3]);
  }
}

}  // namespace sluice::cuda::kda_gpu
