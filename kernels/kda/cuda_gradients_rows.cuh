// kernels/kda/cuda_gradients_rows.cuh -- from a', r', c' to dG, dq, dk and dbeta.
#pragma once

#include "kernels/kda/cuda_gradients.cuh"

namespace sluice::cuda::kda_gpu {

// a', r', c' become dq, dk (before the norms) and dG; k_c the row's sum of k c.
template <int D>
__device__ void combine(Sums<D>& sum, const Shared<D>& s, float (&k_c)[2]) {
  const int block = sum.block();
  const bool unsafe = s.unsafe[block];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = sum.row(half);
    const float q_norm = s.q_norm[i], k_norm = s.k_norm[i], beta = s.beta[i], n = s.diagonal[i];
    k_c[half] = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int d = sum.channel(j), at = sum.at(half, j);
      const float2 qx = pair_at(s.q + at), kx = pair_at(s.k + at), wy = pair_at(s.w + at);
      const float2 q = pair_at(s.X + at), k = pair_at(s.E + at);
      float2 up = pair_at(s.exponent + at), down{-up.x, -up.y};
      if (unsafe) {
        const float2 from = pair_at(s.half + 2 * block * D + d);
        const float2 to = pair_at(s.half + (2 * block + 1) * D + d);
        up.x += from.x, up.y += from.y, down.x += to.x, down.y += to.y;
      }
      const auto element = [&](int e, float qx, float kx, float wy, float up, float down, float q,
                               float k) {
        float &a = sum.a[j][2 * half + e], &r = sum.r[j][2 * half + e], &c = sum.c[j][2 * half + e];
        const float dG = qx * a + kx * r - wy * c, x = exp2_flushed(up);
        q *= q_norm, k *= k_norm;
        const float write = exp2_flushed(down) * c + n * q;
        a = x * a + n * beta * k;
        r = x * r + beta * write;
        k_c[half] += k * write;
        c = dG;
      };
      element(0, qx.x, kx.x, wy.x, up.x, down.x, q.x, k.x);
      element(1, qx.y, kx.y, wy.y, up.y, down.y, q.y, k.y);
    }
  }
}

// Adds the pairs of one block, each with its own exponential: for any gate.
template <int D>
__device__ void exact_triangle(const Unit& u, Sums<D>& sum, const Shared<D>& s, float (&k_c)[2]) {
  const int begin = sum.block() * 16, end = min(begin + 16, u.at.C);
  const auto key = [&](const bf16* from, const float* norms, int i, int d) {
    return __bfloat162float(from[swizzled<D>(i, d)]) * norms[i];
  };
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = sum.row(e / 2), d = sum.channel(j) + e % 2;
      const float here = s.exponent[swizzled<D>(i, d)], beta = s.beta[i];
      float a = 0, r = 0, c = 0;
#pragma unroll 1
      for (int o = begin; o < end; ++o) {
        if (o == i) continue;
        const float there = s.exponent[swizzled<D>(o, d)];
        const float x = exp2_flushed(o < i ? here - there : there - here);
        const float qo = x * key(s.X, s.q_norm, o, d), ko = x * key(s.E, s.k_norm, o, d);
        const int at = swizzled<kC>(i, o), across = swizzled<kC>(o, i);  // 0 above the diagonal
        a += __bfloat162float(s.N[at]) * ko * s.beta[o];
        r += __bfloat162float(s.M[at]) * ko * s.beta[o];
        c += __bfloat162float(s.N[across]) * qo + __bfloat162float(s.M[across]) * ko;
      }
      const float q = key(s.X, s.q_norm, i, d), k = key(s.E, s.k_norm, i, d);
      sum.a[j][e] += a;
      sum.r[j][e] += r + beta * c;
      sum.c[j][e] += q * a + k * (r - beta * c);
      k_c[e / 2] += k * c;
    }
}

// dq and dk of the group's value heads so far, in `keys` [2, 64, D].
template <int D>
__device__ void add_group(Sums<D>& sum, float* keys, bool first, bool last) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float* q = keys + sum.row(half) * D + sum.channel(j);
      float* k = q + kC * D;
      float *a = sum.a[j] + 2 * half, *r = sum.r[j] + 2 * half;
      if (!first) {
        const float2 x = pair_at(q), y = pair_at(k);
        a[0] += x.x, a[1] += x.y, r[0] += y.x, r[1] += y.y;
      }
      if (!last) put_pair(q, a[0], a[1]), put_pair(k, r[0], r[1]);
    }
}

// dG into memory, in place of the exponents, and the sums over rows that norms and dbeta need.
template <int D>
__device__ void store_sums(const Sums<D>& sum, Shared<D>& s, const float (&k_c)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = sum.row(half), part = sum.part();
    float q_dq = 0, k_dk = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = sum.at(half, j);
      const float2 q = pair_at(s.X + at), k = pair_at(s.E + at);
      q_dq += q.x * sum.a[j][2 * half] + q.y * sum.a[j][2 * half + 1];
      k_dk += k.x * sum.r[j][2 * half] + k.y * sum.r[j][2 * half + 1];
      put_pair(s.exponent + at, sum.c[j][2 * half], sum.c[j][2 * half + 1]);
    }
    q_dq = warp_sum(q_dq, 4), k_dk = warp_sum(k_dk, 4);
    const float k_c_sum = warp_sum(k_c[half], 4);
    if (threadIdx.x % 4 != 0) continue;
    s.q_dq[part][i] = q_dq, s.k_dk[part][i] = k_dk, s.k_c[part][i] = k_c_sum;
  }
}

template <int D>
__device__ float over_parts(const float (&x)[Shared<D>::kParts][kC], int i) {
  float sum = 0;
#pragma unroll
  for (int p = 0; p < Shared<D>::kParts; ++p) sum += x[p][i];
  return sum;
}

template <int D>
__device__ void store_beta(const Gradients& t, const Unit& u, const Shared<D>& s) {
  const int i = threadIdx.x;
  if (i >= u.at.C) return;
  const float b = s.beta[i], x = over_parts<D>(s.k_c, i) * b * (1 - b / t.gate.beta_max);
  bf16& out = t.dbeta[u.at.n0 + i][u.hv];
  out = __float2bfloat16(t.add_dbeta ? __bfloat162float(out) + x : x);
}

// Through the norm, in place of x: norm is what x was multiplied by, scale included,
//   dx = norm (dy - x norm^2 (x . dy) / scale^2).
template <int D>
__device__ void norm_backward(const float (&dy)[4][4], bf16* x,
                              const float (&x_dy)[Shared<D>::kParts][kC], const float* norms,
                              float inverse_scale2, Rows to, int add, const Unit& u) {
  using L = Sums<D>;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = L::row(half);
    const float norm = norms[i];
    const float along = over_parts<D>(x_dy, i) * norm * norm * inverse_scale2;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bf16* here = x + L::at(half, j);
      const float2 raw = pair_at(here);
      float x0 = norm * (dy[j][2 * half] - raw.x * along);
      float x1 = norm * (dy[j][2 * half + 1] - raw.y * along);
      if (add && i < u.at.C) {
        const float2 old = pair_at(to[u.at.n0 + i] + u.h * D + L::channel(j));
        x0 += old.x, x1 += old.y;
      }
      put_pair(here, x0, x1);
    }
  }
}

// [64, D] from shared memory to rows of a query head.
template <int D>
__device__ void store_rows(const bf16* from, Rows to, const Unit& u) {
  constexpr int kGroups = D / 8, kStep = Shared<D>::kThreads / kGroups;
  const int first = int(threadIdx.x) / kGroups, column = int(threadIdx.x) % kGroups * 8;
  from += swizzled<D>(first, column);
  bf16* out = to[u.at.n0 + first] + u.h * D + column;
#pragma unroll
  for (int i = 0; i < kC; i += kStep, out += kStep * to.stride)
    if (first + i < u.at.C)
      *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(from + i * D);
}

}  // namespace sluice::cuda::kda_gpu
