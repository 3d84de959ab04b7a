// kernels/mla_cache/cuda_decode.cu -- absorbed attention: a CTA reads a split of a slot's latents
// once, for 32 heads; splits are joined in order.
//
// A tile of 64 keys lies in shared memory while the next one comes in, and is used twice: scores
// are its product with the queries (which stay in registers, a quarter of the columns a warp), the
// sum its product with the weights. Columns that the cache has not are zeros.
#include "kernels/mla_cache/cuda_ops.h"

namespace sluice::cuda {

using namespace mla_cache_gpu;

namespace {

constexpr int kThreads = 256, kHeads = 32;
constexpr int kLatent = int(kMostLatent), kWidth = kLatent + int(kMostRope), kPitch = kWidth + 8;
constexpr int kQuarter = kWidth / 4, kSteps = kQuarter / 16;
constexpr int kScores = kTile + 8;  // pitch

struct Shared {
  bf16 tile[2][kTile * kPitch];
  float score[4][kHeads * kScores];  // of each quarter of the columns
  bf16 p[kHeads * kScores];
  float rescale[kHeads];
};

struct Call {
  Problem p;
  Splits splits;
  int most;  // splits that there is room for
  const bf16* q;
  float *sums, *stats;
  float scale;  // of scores, log2 e included
};

// Where column c of the padded width is in a row of the cache; -1: nowhere.
__device__ int column_of(const Problem& p, int c) {
  if (c < kLatent) return c < p.r ? c : -1;
  return c - kLatent < p.rope ? p.r + c - kLatent : -1;
}

__device__ void load_tile(bf16* to, const Problem& p, const bf16* rows, int count) {
  constexpr int kPieces = kWidth / 8;
#pragma unroll 2
  for (int i = threadIdx.x; i < kTile * kPieces; i += kThreads) {
    const int r = i / kPieces, c = i % kPieces * 8, from = column_of(p, c);
    const bool there = r < count && from >= 0;
    copy_16_bytes(to + r * kPitch + c, there ? rows + int64_t(r) * p.cached() + from : rows, there);
  }
}

// A warp's quarter of the queries, as a: [2][kSteps] tiles of 16 heads and 16 columns.
struct Queries {
  uint32_t r[2][kSteps][4];

  __device__ void load(const Call& t, int n, int h0, int quarter) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int k = 0; k < kSteps; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int h = h0 + m * 16 + lane / 4 + i % 2 * 8;
          const int c = column_of(t.p, quarter * kQuarter + k * 16 + 2 * (lane % 4) + i / 2 * 8);
          r[m][k][i] = h < t.p.H && c >= 0 ? *reinterpret_cast<const uint32_t*>(
                                                 t.q + (int64_t(n) * t.p.H + h) * t.p.cached() + c)
                                           : 0;
        }
  }
};

// Of 32 keys and a quarter of the columns.
__device__ void partial_scores(Shared& s, const bf16* tile, const Queries& q, int quarter,
                               int keys) {
  float c[2][4][4] = {};
#pragma unroll
  for (int k = 0; k < kSteps; ++k)
#pragma unroll
    for (int t = 0; t < 4; t += 2) {
      uint32_t b[4];
      load_b_transposed(b, tile + (keys + t * 8) * kPitch + quarter * kQuarter + k * 16, kPitch);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma(c[m][t], q.r[m][k], b[0], b[1]);
        mma(c[m][t + 1], q.r[m][k], b[2], b[3]);
      }
    }
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<float2*>(&s.score[quarter][(m * 16 + lane / 4 + 8 * half) * kScores +
                                                     keys + t * 8 + 2 * (lane % 4)]) = {
            c[m][t][2 * half], c[m][t][2 * half + 1]};
}

// One head of a thread and its 7 neighbours; keys sub, sub + 8, ...
struct Softmax {
  float top = -INFINITY, sum = 0;  // sum: of this thread's keys

  __device__ void step(Shared& s, int count, float scale) {
    const int head = threadIdx.x / 8, sub = threadIdx.x % 8;
    float x[kTile / 8], best = top;
#pragma unroll
    for (int i = 0; i < kTile / 8; ++i) {
      const int at = head * kScores + sub + 8 * i;
      x[i] = s.score[0][at] + s.score[1][at] + s.score[2][at] + s.score[3][at];
      x[i] = sub + 8 * i < count ? x[i] * scale : -INFINITY;
      best = fmaxf(best, x[i]);
    }
    for (int offset = 4; offset > 0; offset /= 2)
      best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, offset));
    const float rescale = exp2f(top - best);  // a tile has a key, so best is finite
    sum *= rescale, top = best;
#pragma unroll
    for (int i = 0; i < kTile / 8; ++i) {
      const float w = exp2f(x[i] - best);
      sum += w;
      s.p[head * kScores + sub + 8 * i] = __float2bfloat16(w);
    }
    if (sub == 0) s.rescale[head] = rescale;
  }
};

// acc [32, 64 columns of this warp] = rescale acc + p tile.
__device__ void weigh(Shared& s, const bf16* tile, float (&acc)[2][8][4]) {
  const int lane = threadIdx.x % 32, column = threadIdx.x / 32 * 64;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float rescale = s.rescale[m * 16 + lane / 4 + 8 * half];
#pragma unroll
      for (int t = 0; t < 8; ++t)
        acc[m][t][2 * half] *= rescale, acc[m][t][2 * half + 1] *= rescale;
    }
#pragma unroll
  for (int k = 0; k < kTile; k += 16) {
    uint32_t a[2][4];
    load_a(a[0], s.p + k, kScores);
    load_a(a[1], s.p + 16 * kScores + k, kScores);
#pragma unroll
    for (int t = 0; t < 8; t += 2) {
      uint32_t b[4];
      load_b(b, tile + k * kPitch + column + t * 8, kPitch);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma(acc[m][t], a[m], b[0], b[1]);
        mma(acc[m][t + 1], a[m], b[2], b[3]);
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads, 1) attend_kernel(Call t) {
  extern __shared__ __align__(16) char memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  const int split = blockIdx.x, slot = blockIdx.y, h0 = blockIdx.z * kHeads, n = t.p.cu[slot];
  const int keys = t.p.past[slot] + 1, each = t.splits.length(keys), begin = split * each;
  if (t.p.cu[slot + 1] == n || begin >= keys) return;
  const int end = min(begin + each, keys), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bf16* rows = t.p.latents + slot * t.p.slot_stride + int64_t(begin) * t.p.cached();
  load_tile(s.tile[0], t.p, rows, min(kTile, end - begin));
  Queries q;
  q.load(t, n, h0, warp % 4);
  Softmax softmax;
  float acc[2][8][4] = {};
  for (int j = begin, i = 0; j < end; j += kTile, ++i) {
    const bf16* tile = s.tile[i % 2];
    wait_for_copies();
    __syncthreads();
    if (j + kTile < end) {
      rows += int64_t(kTile) * t.p.cached();
      load_tile(s.tile[(i + 1) % 2], t.p, rows, min(kTile, end - j - kTile));
    }
    partial_scores(s, tile, q, warp % 4, warp / 4 * 32);
    __syncthreads();
    softmax.step(s, end - j, t.scale);
    __syncthreads();
    weigh(s, tile, acc);
  }
  const int64_t unit = (int64_t(n) * t.most + split) * t.p.H;
  for (int offset = 4; offset > 0; offset /= 2)
    softmax.sum += __shfl_xor_sync(0xffffffffu, softmax.sum, offset);
  if (const int h = h0 + threadIdx.x / 8; threadIdx.x % 8 == 0 && h < t.p.H)
    *reinterpret_cast<float2*>(t.stats + 2 * (unit + h)) = {softmax.top, softmax.sum};
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int h = h0 + m * 16 + lane / 4 + 8 * half;
#pragma unroll
      for (int u = 0; u < 8; ++u)
        if (const int c = warp * 64 + u * 8 + 2 * (lane % 4); h < t.p.H && c < t.p.r)
          *reinterpret_cast<float2*>(t.sums + (unit + h) * t.p.r + c) = {acc[m][u][2 * half],
                                                                         acc[m][u][2 * half + 1]};
    }
}

// 128 columns of a head: 4 a thread, splits i, i + 8, ... by thread, then the eight in order.
constexpr int kParts = 8;
__global__ void __launch_bounds__(32 * kParts) join_kernel(Call t, bf16* o) {
  __shared__ float weight[kMostSplits], total;
  __shared__ float4 parts[kParts][32];
  const int slot = blockIdx.z, h = blockIdx.x, n = t.p.cu[slot], c = blockIdx.y * 128;
  if (t.p.cu[slot + 1] == n) return;
  const int splits = t.splits.count(t.p.past[slot] + 1), lane = threadIdx.x, part = threadIdx.y;
  const auto unit = [&](int i) { return (int64_t(n) * t.most + i) * t.p.H + h; };
  if (part == 0) {
    float top = -INFINITY, sum = 0;
    for (int i = lane; i < splits; i += 32) top = fmaxf(top, t.stats[2 * unit(i)]);
    for (int offset = 16; offset > 0; offset /= 2)
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
    for (int i = lane; i < splits; i += 32) {
      const float w = exp2f(t.stats[2 * unit(i)] - top);
      weight[i] = w;
      sum += w * t.stats[2 * unit(i) + 1];
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) total = sum;
  }
  __syncthreads();
  float4 x{};
  if (c + 4 * lane < t.p.r) {
#pragma unroll 4
    for (int i = part; i < splits; i += kParts) {
      const float w = weight[i];
      const float4 v = *reinterpret_cast<const float4*>(t.sums + unit(i) * t.p.r + c + 4 * lane);
      x.x += w * v.x, x.y += w * v.y, x.z += w * v.z, x.w += w * v.w;
    }
  }
  parts[part][lane] = x;
  __syncthreads();
  if (part != 0 || c + 4 * lane >= t.p.r) return;
  for (int i = 1; i < kParts; ++i) {
    const float4 v = parts[i][lane];
    x.x += v.x, x.y += v.y, x.z += v.z, x.w += v.w;
  }
  const float inverse = 1 / total;
  uint2* to = reinterpret_cast<uint2*>(o + (int64_t(n) * t.p.H + h) * t.p.r + c + 4 * lane);
  *to = {pack(x.x * inverse, x.y * inverse), pack(x.z * inverse, x.w * inverse)};
}

}  // namespace

void mla_decode(const Context& ctx, const MlaCached& a, const DecodeScratch& m) {
  const mla_cache::Sizes s = mla_cache::sizes_of(a);
  const Problem p = problem_of(a, s.H, s.r, s.nope, s.V);
  SLUICE_CHECK(rows_aligned({a.q, a.w_kv_b}) && s.S < 65536, "q is ", to_string(a.q), ", w_kv_b ",
               to_string(a.w_kv_b), ": rows are not aligned, or too many slots");
  if (s.N == 0) return;
  const Call t{p,
               splits_of(s.S),
               int(m.sums.dim(1)),
               m.q.as<bf16>(),
               m.sums.as<float>(),
               m.stats.as<float>(),
               float(1 / std::sqrt(double(s.nope + s.rope))) * kLog2e};
  absorb(ctx, a, p, m.q);
  allow_shared(attend_kernel, sizeof(Shared));
  attend_kernel<<<dim3(unsigned(t.most), unsigned(s.S), unsigned((s.H + kHeads - 1) / kHeads)),
                  kThreads, sizeof(Shared), ctx.stream>>>(t);
  SLUICE_LAUNCHED(ctx.stream);
  join_kernel<<<dim3(unsigned(s.H), unsigned((s.r + 127) / 128), unsigned(s.S)), dim3(32, kParts),
                0, ctx.stream>>>(t, m.o.as<bf16>());
  SLUICE_LAUNCHED(ctx.stream);
  values(ctx, a, p, m.o);
}

}  // namespace sluice::cuda
