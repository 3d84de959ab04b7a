// kernels/kda/cuda_prepare.cu -- all that a chunk needs from q, k, g and beta alone, chunks in
// parallel: a CTA a chunk and value head.
//
// Pairs (i, j) of different blocks of 16 rows have an anchor between them: e^{G_i - G_j} =
// e^{since i's block began} e^{whole blocks between} e^{from j to its block's end}, three factors
// <= 1. Pairs of one block are anchored in its middle where that is safe, else each has its own
// exponential. The inverse is made by substitution in f32: with nearly equal keys the powers of L
// grow like binomials (README.md). It enters W and R by fp16 products, which round it an eighth as
// much as bf16 would: W's terms cancel then.
#include "kernels/kda/cuda_inverse.cuh"
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda::kda_gpu {

namespace {

constexpr float kFromFp16 = 1 / (kFp16Scale * kFp16Scale);  // of a sum of products

// The tile at (row, column) of a matrix in tiles, multiples of 16, as operands of mma.cuh: as a,
// its transpose as a, as b stored [k, n] and as b stored [n, k].
__device__ inline void tile_as_a(uint32_t (&a)[4], const void* p, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix(a, static_cast<const bf16*>(p) + tile_at(row + l % 16, column + l / 16 * 8));
}
__device__ inline void transpose_as_a(uint32_t (&a)[4], const void* p, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(
      a, static_cast<const bf16*>(p) + tile_at(row + l % 8 + l / 16 * 8, column + l / 8 % 2 * 8));
}
__device__ inline void tile_as_b(uint32_t (&b)[4], const void* p, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(b, static_cast<const bf16*>(p) + tile_at(row + l % 16, column + l / 16 * 8));
}
__device__ inline void transpose_as_b(uint32_t (&b)[4], const void* p, int row, int column) {
  const int l = threadIdx.x % 32;
  ldmatrix(b,
           static_cast<const bf16*>(p) + tile_at(row + l % 8 + l / 16 * 8, column + l / 8 % 2 * 8));
}

// The products of block row I with itself, of the queries (P) and of the keys (L).
template <int D>
__device__ void diagonal_scores(const Prepare<D>& s, int I, float (&P)[2][4], float (&L)[2][4]) {
#pragma unroll 2
  for (int d = 0; d < D; d += 16) {
    uint32_t q[4], k[4], w[4];
    tile_as_a(q, s.q, I * 16, d);
    tile_as_a(k, s.k, I * 16, d);
    transpose_as_b(w, s.g, I * 16, d);
    mma(P[0], q, w[0], w[1]);
    mma(P[1], q, w[2], w[3]);
    mma(L[0], k, w[0], w[1]);
    mma(L[1], k, w[2], w[3]);
  }
}

// w of block row J, times the decay of the blocks between J and I.
template <int D>
__device__ inline void let_pass(const Prepare<D>& s, int I, int J, int d, uint32_t (&w)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float* total = s.total + d + half * 8 + threadIdx.x % 4 * 2;
    Pair between{0, 0};
    for (int B = J + 1; B < I; ++B) between = between + read(total + B * D);
    between = power_of_2(between);
    for (int r = half; r < 4; r += 2) {
      const float2 x = unpack_fp16(w[r]);
      w[r] = pack_fp16(x.x * between.x, x.y * between.y);
    }
  }
}

// Those of block rows I and columns J < I.
template <int D>
__device__ void block_scores(const Prepare<D>& s, int I, int J, float (&P)[2][4],
                             float (&L)[2][4]) {
#pragma unroll 2
  for (int d = 0; d < D; d += 16) {
    uint32_t q[4], k[4], w[4];
    tile_as_a(q, s.q_begun, I * 16, d);
    tile_as_a(k, s.k_begun, I * 16, d);
    transpose_as_b(w, s.w_left, J * 16, d);
    if (I - J > 1) let_pass(s, I, J, d, w);
    mma_fp16(P[0], q, w[0], w[1]);
    mma_fp16(P[1], q, w[2], w[3]);
    mma_fp16(L[0], k, w[0], w[1]);
    mma_fp16(L[1], k, w[2], w[3]);
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
constexpr int kTasks = 10;
__device__ inline int2 block_pair(int task) {
  return {int(0x3232132310 >> 4 * task & 15), int(0x3221010010 >> 4 * task & 15)};
}

// P, and L where the factors were. Unsafe blocks of the diagonal are left out.
template <int D>
__device__ void make_scores(Prepare<D>& s) {
  constexpr int kWarps = kPrepareThreads<D> / 32, kRounds = (kTasks + kWarps - 1) / kWarps;
  float l[kRounds][2][4] = {};
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (round * kWarps + warp >= kTasks) continue;
    const auto [I, J] = block_pair(round * kWarps + warp);
    if (I == J && s.unsafe[I]) continue;
    float p[2][4] = {};
    if (I == J)
      diagonal_scores(s, I, p, l[round]);
    else
      block_scores(s, I, J, p, l[round]);
    const float scale = I == J ? 1 : kFromFp16;
#pragma unroll
    for (int t = 0; t < 2; ++t)
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        const int i = I * 16 + row(e), j = J * 16 + column(t);
        const Pair x = Pair{p[t][e], p[t][e + 1]} * (scale * kFp16Scale);
        write(s.P + tile_at(i, j), Pair{j <= i ? x.x : 0, j + 1 <= i ? x.y : 0});
        l[round][t][e] *= scale, l[round][t][e + 1] *= scale;
      }
  }
  __syncthreads();
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (round * kWarps + warp >= kTasks) continue;
    const auto [I, J] = block_pair(round * kWarps + warp);
    for (int t = 0; t < 2; ++t)
      for (int e = 0; e < 4; e += 2)
        write(s.L + (I * 16 + row(e)) * kInverse + J * 16 + column(t),
              Pair{l[round][t][e], l[round][t][e + 1]});
  }
}

// The diagonal of an unsafe block, for any gate: every pair has its own exponentials. Its q, k and
// g are as they were read; `sums` [16, D] is room for their gates.
template <int D>
__device__ void exact_triangle(const Inputs& in, ChunkAt at, int hv, Prepare<D>& s, int I,
                               float* sums) {
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
    s.P[tile_at(i, j)] = __float2half(p * w * s.q_norm[i] * kFp16Scale);
    s.L[i * kInverse + j] = l * w * s.k_norm[i];
  }
  __syncthreads();
}

// A [16, 16] result of fp16 products to (i, j) of a matrix in tiles.
__device__ inline void store_block(bf16* to, int i, int j, const float (&c)[2][4]) {
#pragma unroll
  for (int t = 0; t < 2; ++t)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      write(to + tile_at(i + row(e), j + column(t)), Pair{c[t][e], c[t][e + 1]} * kFromFp16);
}

// W = A^T (w e^{G_C - G}), 16 columns a warp. w has the decay to its block's end; what is summed
// takes the next blocks' on its way through them.
template <int D>
__device__ void make_writes(const Prepare<D>& s, bf16* W) {
  const int d = threadIdx.x / 32 * 16;
  float c[kBlocks][2][4] = {};
#pragma unroll
  for (int I = 0; I < kBlocks; ++I) {
#pragma unroll
    for (int t = 0; t < 2 && I > 0; ++t) {
      const Pair decay = power_of_2(read(s.total + I * D + d + column(t)));
#pragma unroll
      for (int J = 0; J < I; ++J)
        c[J][t][0] *= decay.x, c[J][t][1] *= decay.y, c[J][t][2] *= decay.x, c[J][t][3] *= decay.y;
    }
    uint32_t a[4], b[4];
    tile_as_b(b, s.w_left, I * 16, d);
#pragma unroll
    for (int J = 0; J <= I; ++J) {
      transpose_as_a(a, s.inverse, I * 16, J * 16);
      mma_fp16(c[J][0], a, b[0], b[1]);
      mma_fp16(c[J][1], a, b[2], b[3]);
    }
  }
#pragma unroll
  for (int J = 0; J < kBlocks; ++J) store_block(W, J * 16, d, c[J]);
}

// R = P A.
template <int D>
__device__ void make_reads(const Prepare<D>& s, bf16* R) {
  for (int task = threadIdx.x / 32; task < kTasks; task += kPrepareThreads<D> / 32) {
    const auto [I, J] = block_pair(task);
    float c[2][4] = {};
    for (int B = J; B <= I; ++B) {
      uint32_t a[4], b[4];
      tile_as_a(a, s.P, I * 16, B * 16);
      tile_as_b(b, s.inverse, B * 16, J * 16);
      mma_fp16(c[0], a, b[0], b[1]);
      mma_fp16(c[1], a, b[2], b[3]);
    }
    store_block(R, I * 16, J * 16, c);
    if (I > J) store_block(R, J * 16, I * 16, {});  // above the diagonal
  }
}

template <int D>
__global__ void __launch_bounds__(kPrepareThreads<D>, 2) prepare_kernel(Inputs in, Memory m) {
  extern __shared__ __align__(1024) char memory[];
  Prepare<D>& s = *reinterpret_cast<Prepare<D>*>(memory);
  const ChunkAt at = m.chunk[blockIdx.y];
  if (at.C == 0) return;
  const int hv = blockIdx.x;
  const int64_t unit = int64_t(blockIdx.y) * in.HV + hv;
  load(in, at, hv / (in.HV / in.H), hv, s);
  norms(s);
  __syncthreads();
  make_factors(in, at, hv, s, m, unit);
  make_scores(s);
  for (int I = 0; I < kBlocks; ++I)
    if (s.unsafe[I]) exact_triangle(in, at, hv, s, I, s.A);
  __syncthreads();
  invert<kPrepareThreads<D>>(s.L, s.A, s.room);
  round_inverse(s, in.keeps ? m.A + unit * kC * kC : nullptr);
  make_writes(s, m.W + unit * kC * D);
  make_reads(s, m.R + unit * kC * kC);
}

template <int D>
void prepare(const Context& ctx, const KdaForward& a, const kda::Sizes& s, const Memory& m) {
  const Inputs in{
      rows(a.q),  rows(a.k), rows(a.g), {static_cast<bf16*>(a.beta.data), a.beta.stride[0]},
      gate_of(a), int(s.H),  int(s.HV), bool(a.saved)};
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
