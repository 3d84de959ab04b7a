// kernels/kda/cuda_prepare.cu -- all that a chunk needs from q, k, g and beta alone, chunks in
// parallel.
//
// Pairs (i, j) of different blocks of 16 rows have an anchor between them: e^{G_i - G_j} =
// e^{since i's block began} e^{whole blocks between} e^{from j to its block's end}, three factors
// <= 1. Pairs of one block are anchored in its middle where that is safe, else each has its own
// exponential. The inverse is made by substitution in f32: with nearly equal keys the powers of L
// grow like binomials (README.md).
#include "kernels/device/wgmma.cuh"
#include "kernels/kda/cuda.cuh"
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda::kda_gpu {

namespace {

constexpr int kInverse = kC + 4;  // pitch, f32

template <int D>
struct Shared {
  static constexpr int kPitch = D + 8;
  float G[kC * Decay<D>::kPitch];  // later the inverse
  float total[4 * D];
  float L[kC * kInverse];
  float q_norm[kC], k_norm[kC], beta[kC];
  int unsafe[4];
  bf16 q[kC * kPitch], k[kC * kPitch];  // times the decay since their block began
  bf16 w[kC * kPitch];                  // times the decay to its block's end; later a product
};

struct Inputs {
  Rows q, k, g, beta;
  Gate gate;
  int H, HV;
};

// Two channels of a token; beyond C the last one's, which a norm of 0 takes out.
__device__ float2 raw(Rows x, ChunkAt at, int i, int column) {
  return unpack(*reinterpret_cast<const uint32_t*>(x[at.n0 + min(i, at.C - 1)] + column));
}

// Factors into shared memory for the pairs, and into global memory for the states: a thread a
// channel.
template <int D>
__device__ void make_factors(const Inputs& in, ChunkAt at, int h, Shared<D>& s, Decay<D> decay,
                             const Memory& m, int64_t unit) {
  const int d = threadIdx.x % D;
  for (int I = threadIdx.x / D; I < 4; I += kThreads / D) {
    const float before = __expf(decay.between(0, I, d)), after = __expf(decay.between(I + 1, 4, d));
    float qs[16], ks[16];
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const int64_t n = at.n0 + min(I * 16 + r, at.C - 1);
      qs[r] = __bfloat162float(in.q[n][h * D + d]);
      ks[r] = __bfloat162float(in.k[n][h * D + d]);
    }
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const int i = I * 16 + r;
      const float x = __expf(decay.at(i, d)), y = __expf(decay.rest(i, d));
      const float q = qs[r] * s.q_norm[i] * x, k = ks[r] * s.k_norm[i];
      const float w = k * s.beta[i] * y;
      s.q[i * Shared<D>::kPitch + d] = __float2bfloat16(q);
      s.k[i * Shared<D>::kPitch + d] = __float2bfloat16(k * x);
      s.w[i * Shared<D>::kPitch + d] = __float2bfloat16(w);
      const int64_t e = unit * kC * D + tile_at(i, d);
      m.q_plus[e] = __float2bfloat16(q * before);
      m.k_plus[e] = __float2bfloat16(k * x * before);
      m.k_minus[e] = __float2bfloat16(w * after);
    }
  }
  if (threadIdx.x < D) m.gamma[unit * D + d] = __expf(decay.between(0, 4, d));
}

// L (f32, shared) or P (bf16, global) of block rows I, block columns J < I.
template <int D>
__device__ void square(const Shared<D>& s, Decay<D> decay, int I, int J, const bf16* row_factors,
                       float (&c)[2][4]) {
  constexpr int kPitch = Shared<D>::kPitch;
  const int lane = threadIdx.x % 32;
  for (int d = 0; d < D; d += 16) {
    uint32_t a[4], b[4];
    load_a(a, row_factors + I * 16 * kPitch + d, kPitch);
    load_b_transposed(b, s.w + J * 16 * kPitch + d, kPitch);
    if (I - J > 1)
      for (int half = 0; half < 2; ++half) {
        const int column = d + half * 8 + lane % 4 * 2;
        const float t0 = __expf(decay.between(J + 1, I, column));
        const float t1 = __expf(decay.between(J + 1, I, column + 1));
        for (int r = 2 * half; r < 2 * half + 2; ++r) {
          const float2 x = unpack(a[r]);
          a[r] = pack(x.x * t0, x.y * t1);
        }
      }
    mma(c[0], a, b[0], b[1]);
    mma(c[1], a, b[2], b[3]);
  }
}

// Both, of the pairs inside block I: factors anchored in the middle are made in registers, where
// the tiles of q, k (as a) and w (as b) have the same elements.
template <int D>
__device__ void triangle(const Inputs& in, ChunkAt at, int h, const Shared<D>& s, Decay<D> decay,
                         int I, float (&L)[2][4], float (&P)[2][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll 4
  for (int d = 0; d < D; d += 16) {
    uint32_t q[4], k[4], w[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int i = I * 16 + lane / 4 + r % 2 * 8, column = d + lane % 4 * 2 + r / 2 * 8;
      const float e0 = decay.from_middle(i, column), e1 = decay.from_middle(i, column + 1);
      const float x0 = __expf(e0), x1 = __expf(e1), y0 = __expf(-e0), y1 = __expf(-e1);
      const float2 qi = raw(in.q, at, i, h * D + column), ki = raw(in.k, at, i, h * D + column);
      const float rq = s.q_norm[i], rk = s.k_norm[i], rw = rk * s.beta[i];
      q[r] = pack(qi.x * rq * x0, qi.y * rq * x1);
      k[r] = pack(ki.x * rk * x0, ki.y * rk * x1);
      w[r] = pack(ki.x * rw * y0, ki.y * rw * y1);
    }
    mma(P[0], q, w[0], w[2]);
    mma(P[1], q, w[1], w[3]);
    mma(L[0], k, w[0], w[2]);
    mma(L[1], k, w[1], w[3]);
  }
}

// As triangle, for any gate: every pair has its own exponentials.
template <int D>
__device__ void exact_triangle(const Inputs& in, ChunkAt at, int h, Shared<D>& s, Decay<D> decay,
                               int I, bf16* P) {
  const int lane = threadIdx.x % 32;
  for (int i = I * 16; i < I * 16 + 16; ++i)
    for (int j = I * 16; j < I * 16 + 16; ++j) {
      float p = 0, l = 0;
      if (j <= i && i < at.C)
        for (int d = lane; d < D; d += 32) {
          const float e = __expf(decay.at(i, d) - decay.at(j, d)) *
                          __bfloat162float(in.k[at.n0 + j][h * D + d]);
          p += e * __bfloat162float(in.q[at.n0 + i][h * D + d]);
          l += e * __bfloat162float(in.k[at.n0 + i][h * D + d]);
        }
      p = warp_sum(p), l = warp_sum(l);
      if (lane != 0) continue;
      const float w = s.k_norm[j] * s.beta[j];
      P[tile_at(i, j)] = __float2bfloat16(p * w * s.q_norm[i]);
      s.L[i * kInverse + j] = l * w * s.k_norm[i];
    }
}

// Element e of a warp's [16, 16] result lies at row(e), column(e) of its block.
__device__ int row(int e) {
  return int(threadIdx.x) % 32 / 4 + e / 2 * 8;
}
__device__ int column(int tile, int e) {
  return tile * 8 + int(threadIdx.x) % 4 * 2 + e % 2;
}

template <int D>
__device__ void make_scores(const Inputs& in, ChunkAt at, int h, Shared<D>& s, Decay<D> decay,
                            bf16* P) {
  const int warp = threadIdx.x / 32;
  const bf16 zero = __float2bfloat16(0.f);
  if (warp < 4 && s.unsafe[warp]) {
    exact_triangle(in, at, h, s, decay, warp, P);
  } else if (warp < 4) {
    float l[2][4] = {}, p[2][4] = {};
    triangle(in, at, h, s, decay, warp, l, p);
    for (int t = 0; t < 2; ++t)
      for (int e = 0; e < 4; ++e) {
        const int i = warp * 16 + row(e), j = warp * 16 + column(t, e);
        s.L[i * kInverse + j] = l[t][e];
        P[tile_at(i, j)] = j <= i ? __float2bfloat16(p[t][e]) : zero;
      }
  } else {
    for (int task = warp - 4; task < 12; task += 4) {
      const int pair = task / 2, I = pair < 1 ? 1 : pair < 3 ? 2 : 3, J = pair - I * (I - 1) / 2;
      float c[2][4] = {};
      square(s, decay, I, J, task % 2 ? s.q : s.k, c);
      for (int t = 0; t < 2; ++t)
        for (int e = 0; e < 4; ++e) {
          const int i = I * 16 + row(e), j = J * 16 + column(t, e);
          if (task % 2) {
            P[tile_at(i, j)] = __float2bfloat16(c[t][e]);
            P[tile_at(J * 16 + row(e), I * 16 + column(t, e))] = zero;  // above the diagonal
          } else {
            s.L[i * kInverse + j] = c[t][e];
          }
        }
    }
  }
}

// out [n, n] = +-a b, for `count` such products `step` elements apart; four columns a thread.
template <int n>
__device__ void products(float* out, const float* a, const float* b, float sign, int count,
                         int step) {
  constexpr int kEach = n * n / 4;
  if (int(threadIdx.x) < count * kEach) {
    const int offset = int(threadIdx.x) / kEach * step, t = int(threadIdx.x) % kEach;
    const int i = t / (n / 4), j = t % (n / 4) * 4;
    float4 sum{0, 0, 0, 0};
#pragma unroll 8
    for (int x = 0; x < n; ++x) {
      const float ax = a[offset + i * kInverse + x];
      const float4 bx = *reinterpret_cast<const float4*>(b + offset + x * kInverse + j);
      sum.x += ax * bx.x, sum.y += ax * bx.y, sum.z += ax * bx.z, sum.w += ax * bx.w;
    }
    *reinterpret_cast<float4*>(out + offset + i * kInverse + j) = {sign * sum.x, sign * sum.y,
                                                                   sign * sum.z, sign * sum.w};
  }
  __syncthreads();
}

// A = (I + L)^-1: columns of the four 16 x 16 blocks by substitution, then twice
// [[A0, 0], [-A1 L10 A0, A1]].
__device__ void invert(const float* L, float* A, float* room) {
  for (int e = threadIdx.x; e < kC * kInverse; e += kThreads) A[e] = 0;
  __syncthreads();
  if (threadIdx.x < kC) {
    const int begin = int(threadIdx.x) / 16 * 16, j = int(threadIdx.x) % 16;
    float x[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float sum = i == j ? 1.f : 0.f;
#pragma unroll
      for (int k = 0; k < i; ++k) sum -= L[(begin + i) * kInverse + begin + k] * x[k];
      x[i] = sum;
      A[(begin + i) * kInverse + begin + j] = sum;
    }
  }
  __syncthreads();
  constexpr int kBelow = 16 * kInverse, kBelow32 = 32 * kInverse, kNext = 32 * kInverse + 32;
  products<16>(room + kBelow, L + kBelow, A, 1, 2, kNext);
  products<16>(A + kBelow, A + kBelow + 16, room + kBelow, -1, 2, kNext);
  products<32>(room + kBelow32, L + kBelow32, A, 1, 1, 0);
  products<32>(A + kBelow32, A + kBelow32 + 32, room + kBelow32, -1, 1, 0);
}

template <int D>
__global__ void __launch_bounds__(kThreads, 2) prepare_kernel(Inputs in, Memory m) {
  extern __shared__ __align__(16) char memory[];
  Shared<D>& s = *reinterpret_cast<Shared<D>*>(memory);
  const ChunkAt at = m.chunk[blockIdx.y];
  if (at.C == 0) return;
  const int hv = blockIdx.x, h = hv / (in.HV / in.H);
  const int64_t unit = int64_t(blockIdx.y) * in.HV + hv;
  const Decay<D> decay{s.G, s.total};
  if (threadIdx.x < 4) s.unsafe[threadIdx.x] = 0;
  load_norms<D, kThreads>(in.q, in.k, in.beta, in.gate, at, h, hv, s.q_norm, s.k_norm, s.beta);
  __syncthreads();
  load_decay<D, kThreads>(in.g, in.gate, at, hv, decay, s.unsafe);
  __syncthreads();
  make_factors(in, at, h, s, decay, m, unit);
  __syncthreads();
  make_scores(in, at, h, s, decay, m.P + unit * kC * kC);
  __syncthreads();
  float* room = reinterpret_cast<float*>(s.q);
  static_assert(sizeof(s.q) + sizeof(s.k) >= sizeof(s.L) && sizeof(s.G) >= sizeof(s.L));
  invert(s.L, s.G, room);
  bf16* A = m.A + unit * kC * kC;
  for (int e = threadIdx.x; e < kC * kC / 2; e += kThreads) {
    const int i = e / (kC / 2), j = e % (kC / 2) * 2;
    const float* from = s.G + i * kInverse + j;
    *reinterpret_cast<uint32_t*>(A + tile_at(i, j)) = pack(from[0], from[1]);
  }
}

// first[d], by one CTA: each thread sums some consecutive documents, then thread 0 the threads'.
// Then a document's chunks, a warp a document.
__global__ void __launch_bounds__(1024)
    chunk_table_kernel(const int32_t* cu, int documents, int chunks, Memory m) {
  __shared__ int sums[1024];
  const int each = (documents + 1023) / 1024, begin = min(int(threadIdx.x) * each, documents);
  const int end = min(begin + each, documents);
  const auto count = [cu](int d) { return (cu[d + 1] - cu[d] + kC - 1) / kC; };
  int sum = 0;
  for (int d = begin; d < end; ++d) sum += count(d);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int t = 0, total = 0; t < 1024; ++t) {
      const int mine = sums[t];
      sums[t] = total;
      total += mine;
    }
  __syncthreads();
  sum = sums[threadIdx.x];
  for (int d = begin; d < end; ++d) {
    m.first[d] = sum;
    sum += count(d);
  }
  if (end == documents && begin <= end) m.first[documents] = sum;
  __syncthreads();
  for (int d = threadIdx.x / 32; d < documents; d += 32)
    for (int c = threadIdx.x % 32; c < count(d); c += 32)
      m.chunk[m.first[d] + c] = {cu[d] + c * kC, min(cu[d + 1] - cu[d] - c * kC, kC)};
  for (int c = m.first[documents] + int(threadIdx.x); c < chunks; c += 1024) m.chunk[c] = {0, 0};
}

template <int D>
void prepare(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  const Inputs in{
      rows(a.q),  rows(a.k), rows(a.g), {static_cast<bf16*>(a.beta.data), a.beta.stride[0]},
      gate_of(a), int(s.H),  int(s.HV)};
  allow_shared(prepare_kernel<D>, sizeof(Shared<D>));
  prepare_kernel<D>
      <<<dim3(unsigned(s.HV), unsigned(s.chunks())), kThreads, sizeof(Shared<D>), ctx.stream>>>(in,
                                                                                                m);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void prepare(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  chunk_table_kernel<<<1, 1024, 0, ctx.stream>>>(a.cu_seqlens.as<int32_t>(), int(s.documents),
                                                 int(s.chunks()), m);
  SLUICE_LAUNCHED(ctx.stream);
  if (s.K == 64)
    prepare<64>(ctx, a, s, m);
  else
    prepare<128>(ctx, a, s, m);
}

}  // namespace sluice::cuda::kda_gpu
