// kernels/kda/cuda_prepare.cu -- all that a chunk needs from q, k, g and beta alone, chunks in
// parallel: a CTA a chunk and value head.
//
// Pairs (i, j) of different blocks of 16 rows have an anchor between them: e^{G_i - G_j} =
// e^{since i's block began} e^{whole blocks between} e^{from j to its block's end}, three factors
// <= 1. Pairs of one block are anchored in its middle where that is safe, else each has its own
// exponential. The inverse is made by substitution in f32: with nearly equal keys the powers of L
// grow like binomials (README.md).
#include "kernels/kda/cuda_factors.cuh"
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda::kda_gpu {

namespace {

// A tile as a and as b of mma.cuh, rows 16 I .., columns d ..
__device__ inline void load_row_tile(uint32_t (&a)[4], const bf16* p, int I, int d) {
  const int l = threadIdx.x % 32;
  ldmatrix(a, p + tile_at(I * 16 + l % 16, d + l / 16 * 8));
}
__device__ inline void load_column_tile(uint32_t (&b)[4], const bf16* p, int J, int d) {
  const int l = threadIdx.x % 32;
  ldmatrix(b, p + tile_at(J * 16 + l % 8 + l / 16 * 8, d + l / 8 % 2 * 8));
}

// The products of block rows I and columns J <= I, of the queries (P) and of the keys (L).
template <int D>
__device__ void block_scores(const Prepare<D>& s, int I, int J, float (&P)[2][4],
                             float (&L)[2][4]) {
  const bool diagonal = I == J;
  const bf16 *rows_q = diagonal ? s.q : s.q_begun, *rows_k = diagonal ? s.k : s.k_begun;
  const bf16* columns = diagonal ? s.g : s.w_left;
#pragma unroll 2
  for (int d = 0; d < D; d += 16) {
    uint32_t q[4], k[4], w[4];
    load_row_tile(q, rows_q, I, d);
    load_row_tile(k, rows_k, I, d);
    load_column_tile(w, columns, J, d);
    if (I - J > 1)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* total = s.total + d + half * 8 + threadIdx.x % 4 * 2;
        Pair between{0, 0};
        for (int between_I = J + 1; between_I < I; ++between_I)
          between = between + read(total + between_I * D);
        between = power_of_2(between);
        for (int r = half; r < 4; r += 2) {
          const float2 x = unpack(w[r]);
          w[r] = pack(x.x * between.x, x.y * between.y);
        }
      }
    mma(P[0], q, w[0], w[1]);
    mma(P[1], q, w[2], w[3]);
    mma(L[0], k, w[0], w[1]);
    mma(L[1], k, w[2], w[3]);
  }
}

// Element e of a warp's [16, 16] result lies at row(e), column(e) of its block.
__device__ int row(int e) {
  return int(threadIdx.x) % 32 / 4 + e / 2 * 8;
}
__device__ int column(int tile) {
  return tile * 8 + int(threadIdx.x) % 4 * 2;
}

// Block (I, J) of the ten on and below the diagonal, in an order that shares them out evenly: those
// with others between them cost most.
__device__ inline int2 block_pair(int task) {
  return {int(0x3232132310 >> 4 * task & 15), int(0x3221010010 >> 4 * task & 15)};
}

// P into global memory, L where the factors were. Unsafe blocks of the diagonal are left out.
template <int D>
__device__ void make_scores(Prepare<D>& s, bf16* P) {
  constexpr int kWarps = kPrepareThreads<D> / 32, kTasks = 10;
  constexpr int kRounds = (kTasks + kWarps - 1) / kWarps;
  float l[kRounds][2][4] = {};
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (round * kWarps + warp >= kTasks) continue;
    const auto [I, J] = block_pair(round * kWarps + warp);
    if (I == J && s.unsafe[I]) continue;
    float p[2][4] = {};
    block_scores(s, I, J, p, l[round]);
#pragma unroll
    for (int t = 0; t < 2; ++t)
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        const int i = I * 16 + row(e), j = J * 16 + column(t);
        *reinterpret_cast<uint32_t*>(P + tile_at(i, j)) =
            pack(j <= i ? p[t][e] : 0, j + 1 <= i ? p[t][e + 1] : 0);
        if (I > J)  // above the diagonal
          *reinterpret_cast<uint32_t*>(P + tile_at(J * 16 + row(e), I * 16 + column(t))) = 0;
      }
  }
  __syncthreads();
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (round * kWarps + warp >= kTasks) continue;
    const auto [I, J] = block_pair(round * kWarps + warp);
    for (int t = 0; t < 2; ++t)
      for (int e = 0; e < 4; e += 2)
        *reinterpret_cast<float2*>(s.L + (I * 16 + row(e)) * kInverse + J * 16 + column(t)) = {
            l[round][t][e], l[round][t][e + 1]};
  }
}

// The diagonal of an unsafe block, for any gate: every pair has its own exponentials. Its q, k and
// g are as they were read; `sums` [16, D] is room for their gates.
template <int D>
__device__ void exact_triangle(const Inputs& in, ChunkAt at, int hv, Prepare<D>& s, int I,
                               float* sums, bf16* P) {
  const int d = threadIdx.x % (D / 2) * 2, lane = threadIdx.x % 32;
  if (threadIdx.x / (D / 2) == I) {
    Pair G[kBlock];
    sum_gates(in, at, hv, s, I, d, G);
#pragma unroll
    for (int r = 0; r < kBlock; ++r) write(sums + r * D + d, G[r]);
  }
  __syncthreads();
  for (int task = threadIdx.x / 32; task < kBlock * kBlock; task += kPrepareThreads<D> / 32) {
    const int r = task / kBlock, c = task % kBlock, i = I * kBlock + r, j = I * kBlock + c;
    float p = 0, l = 0;
    if (c <= r)
      for (int x = lane; x < D; x += 32) {
        const float e =
            exp2_flushed(sums[r * D + x] - sums[c * D + x]) * __bfloat162float(s.k[tile_at(j, x)]);
        p += e * __bfloat162float(s.q[tile_at(i, x)]);
        l += e * __bfloat162float(s.k[tile_at(i, x)]);
      }
    p = warp_sum(p), l = warp_sum(l);
    if (lane != 0) continue;
    const float w = s.k_norm[j] * s.beta[j];
    P[tile_at(i, j)] = __float2bfloat16(p * w * s.q_norm[i]);
    s.L[i * kInverse + j] = l * w * s.k_norm[i];
  }
  __syncthreads();
}

// out [n, n] = +-a b, for `count` such products `step` elements apart; four columns a thread.
template <int n, int threads>
__device__ void products(float* out, const float* a, const float* b, float sign, int count,
                         int step) {
  constexpr int kEach = n * n / 4;
  for (int task = threadIdx.x; task < count * kEach; task += threads) {
    const int offset = task / kEach * step, t = task % kEach;
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
template <int threads>
__device__ void invert(const float* L, float* A, float* room) {
  for (int e = threadIdx.x; e < kC * kInverse; e += threads) A[e] = 0;
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
  products<16, threads>(room + kBelow, L + kBelow, A, 1, 2, kNext);
  products<16, threads>(A + kBelow, A + kBelow + 16, room + kBelow, -1, 2, kNext);
  products<32, threads>(room + kBelow32, L + kBelow32, A, 1, 1, 0);
  products<32, threads>(A + kBelow32, A + kBelow32 + 32, room + kBelow32, -1, 1, 0);
}

template <int D>
__global__ void __launch_bounds__(kPrepareThreads<D>, 2) prepare_kernel(Inputs in, Memory m) {
  extern __shared__ __align__(1024) char memory[];
  Prepare<D>& s = *reinterpret_cast<Prepare<D>*>(memory);
  const ChunkAt at = m.chunk[blockIdx.y];
  if (at.C == 0) return;
  const int hv = blockIdx.x;
  const int64_t unit = int64_t(blockIdx.y) * in.HV + hv;
  bf16* P = m.P + unit * kC * kC;
  load(in, at, hv / (in.HV / in.H), hv, s);
  norms(s);
  __syncthreads();
  make_factors(in, at, hv, s, m, unit);
  make_scores(s, P);
  for (int I = 0; I < kBlocks; ++I)
    if (s.unsafe[I]) exact_triangle(in, at, hv, s, I, s.A, P);
  __syncthreads();
  invert<kPrepareThreads<D>>(s.L, s.A, s.room);
  bf16* A = m.A + unit * kC * kC;
  for (int e = threadIdx.x; e < kC * kC / 8; e += kPrepareThreads<D>) {
    const int i = e / (kC / 8), j = e % (kC / 8) * 8;
    const float4* from = reinterpret_cast<const float4*>(s.A + i * kInverse + j);
    const float4 x = from[0], y = from[1];
    *reinterpret_cast<uint4*>(A + tile_at(i, j)) = {pack(x.x, x.y), pack(x.z, x.w), pack(y.x, y.y),
                                                    pack(y.z, y.w)};
  }
}

template <int D>
void prepare(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  const Inputs in{
      rows(a.q),  rows(a.k), rows(a.g), {static_cast<bf16*>(a.beta.data), a.beta.stride[0]},
      gate_of(a), int(s.H),  int(s.HV)};
  allow_shared(prepare_kernel<D>, sizeof(Prepare<D>));
  prepare_kernel<D><<<dim3(unsigned(s.HV), unsigned(s.chunks())), kPrepareThreads<D>,
                      sizeof(Prepare<D>), ctx.stream>>>(in, m);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void prepare(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  if (s.K == 64)
    prepare<64>(ctx, a, s, m);
  else
    prepare<128>(ctx, a, s, m);
}

}  // namespace sluice::cuda::kda_gpu
