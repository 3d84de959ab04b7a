// kernels/mla_cache/cuda_prefill.cu -- many queries of a slot against its cache: keys and values of
// a block of tokens are made by one product, then a CTA takes 128 queries of a head through them.
//
// What a query has so far (sum, largest score, sum of weights) waits in scratch for the next block,
// so that memory is bounded by the block, whatever the context. Blocks are counted from token 0.
#include "kernels/gemm/cuda_gemm.h"
#include "kernels/mla_cache/cuda_ops.h"

namespace sluice::cuda {

using namespace mla_cache_gpu;

namespace {

constexpr int kThreads = 256, kRows = 128, kQk = 192, kV = 128;
constexpr int kQkPitch = kQk + 8, kVPitch = kV + 8;

struct Shared {
  struct Keys {
    bf16 k[kTile * kQkPitch], v[kTile * kVPitch];
  } keys[2];
};

// Rows [count] of one slot against one block of its keys.
struct Call {
  const bf16 *q, *kv, *k_rope;  // of the first row, and of the first key of the block
  int64_t q_row, kv_row, cached;
  bf16* o;  // [count, H, V], rows o_row apart
  int64_t o_row;
  float *sums, *stats;  // [count, H, V], [count, H, 2]
  int count, past;      // query i is token past + i
  int first, keys;      // the block's tokens
  int H, nope, rope, V;
  float scale;  // log2 e included
};

// What no key has stays zero: load_keys writes the columns that are there.
__device__ void clear(Shared& s) {
  uint4* words = reinterpret_cast<uint4*>(&s);
  for (int i = threadIdx.x; i < int(sizeof(Shared) / sizeof(uint4)); i += kThreads)
    words[i] = uint4{};
}

// Keys j0 .. j0 + 63 of head h, zeros beyond the block.
__device__ void load_keys(Shared::Keys& s, const Call& t, int h, int j0) {
  const int wide = threadIdx.x % 16, narrow = threadIdx.x % 8;  // pieces of 8 columns
  int r = threadIdx.x / 16;
  const bf16* kv = t.kv + (j0 + r) * t.kv_row + h * (t.nope + t.V) + wide * 8;
#pragma unroll
  for (int i = 0; i < kTile * 16 / kThreads; ++i) {
    const bool there = j0 + r < t.keys;
    if (wide * 8 < t.nope) copy_16_bytes(s.k + r * kQkPitch + wide * 8, kv, there);
    if (wide * 8 < t.V) copy_16_bytes(s.v + r * kVPitch + wide * 8, kv + t.nope, there);
    r += kThreads / 16, kv += kThreads / 16 * t.kv_row;
  }
  r = threadIdx.x / 8;
  const bf16* rope = t.k_rope + (j0 + r) * t.cached + narrow * 8;
#pragma unroll
  for (int i = 0; i < kTile * 8 / kThreads; ++i) {
    if (narrow * 8 < t.rope)
      copy_16_bytes(s.k + r * kQkPitch + t.nope + narrow * 8, rope, j0 + r < t.keys);
    r += kThreads / 8, rope += kThreads / 8 * t.cached;
  }
}

// Of a warp's 16 queries: two rows a thread.
struct Queries {
  uint32_t r[kQk / 16][4];

  __device__ void load(const Call& t, int h, int row) {
    const int lane = threadIdx.x % 32, width = t.nope + t.rope;
#pragma unroll
    for (int k = 0; k < kQk / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = row + i % 2 * 8, c = k * 16 + 2 * (lane % 4) + i / 2 * 8;
        r[k][i] = n < t.count && c < width
                      ? *reinterpret_cast<const uint32_t*>(t.q + n * t.q_row + h * width + c)
                      : 0;
      }
  }
};

struct State {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  float o[kV / 8][4] = {};

  // Rows row and row + 8 of a head; columns of a thread are 8 u + 2 (lane % 4) + {0, 1}.
  __device__ void load(const Call& t, int h, int row) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int n = row + 8 * half;
      if (n >= t.count) continue;
      const int64_t unit = int64_t(n) * t.H + h;
      top[half] = t.stats[2 * unit];
      sum[half] = lane % 4 == 0 ? t.stats[2 * unit + 1] : 0;
#pragma unroll
      for (int u = 0; u < kV / 8; ++u)
        if (const int c = 8 * u + 2 * (lane % 4); c < t.V) {
          const float2 v = *reinterpret_cast<const float2*>(t.sums + unit * t.V + c);
          o[u][2 * half] = v.x, o[u][2 * half + 1] = v.y;
        }
    }
  }
  // The results if `done`, else what the next block goes on from.
  __device__ void store(const Call& t, int h, int row, bool done) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int n = row + 8 * half;
      if (n >= t.count) continue;
      const int64_t unit = int64_t(n) * t.H + h;
      if (!done && lane % 4 == 0)
        *reinterpret_cast<float2*>(t.stats + 2 * unit) = {top[half], total};
      const float inverse = 1 / total;
#pragma unroll
      for (int u = 0; u < kV / 8; ++u) {
        const int c = 8 * u + 2 * (lane % 4);
        if (c >= t.V) continue;
        const float x = o[u][2 * half], y = o[u][2 * half + 1];
        if (done)
          *reinterpret_cast<uint32_t*>(t.o + n * t.o_row + h * t.V + c) =
              pack(x * inverse, y * inverse);
        else
          *reinterpret_cast<float2*>(t.sums + unit * t.V + c) = {x, y};
      }
    }
  }
  // Scores of keys j0 .. become weights; `last`: of the keys, by row, the last that it sees.
  __device__ void weigh(float (&s)[8][4], int j0, const int (&last)[2], float scale) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float best = top[half];
#pragma unroll
      for (int t = 0; t < 8; ++t)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int j = j0 + 8 * t + 2 * (lane % 4) + e % 2;
          s[t][e] = j <= last[half] ? s[t][e] * scale : -INFINITY;
          best = fmaxf(best, s[t][e]);
        }
      best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 1));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 2));
      const float zero = best == -INFINITY ? 0 : best;  // a row may see none of the tile
      const float rescale = exp2f(top[half] - zero);
      top[half] = best, sum[half] *= rescale;
#pragma unroll
      for (int u = 0; u < kV / 8; ++u) o[u][2 * half] *= rescale, o[u][2 * half + 1] *= rescale;
#pragma unroll
      for (int t = 0; t < 8; ++t)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[t][e] = exp2f(s[t][e] - zero);
          sum[half] += s[t][e];
        }
    }
  }
};

__global__ void __launch_bounds__(kThreads, 1) prefill_kernel(Call t) {
  extern __shared__ __align__(16) char memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  // The latest queries, which see most, first.
  const int n0 = int(gridDim.x - 1 - blockIdx.x) * kRows, h = blockIdx.y;
  const int newest = t.past + min(n0 + kRows, t.count) - 1;  // token
  if (newest < t.first) return;                              // done in an earlier block
  const int end = min(t.keys, newest + 1 - t.first);
  const int row = n0 + int(threadIdx.x) / 32 * 16 + int(threadIdx.x) % 32 / 4;
  const int last[2] = {t.past + row - t.first, t.past + row + 8 - t.first};
  clear(s);
  __syncthreads();
  load_keys(s.keys[0], t, h, 0);
  Queries q;
  q.load(t, h, row);
  State state;
  if (t.first > 0) state.load(t, h, row);
  for (int j = 0, i = 0; j < end; j += kTile, ++i) {
    const Shared::Keys& keys = s.keys[i % 2];
    wait_for_copies();
    __syncthreads();
    if (j + kTile < end) load_keys(s.keys[(i + 1) % 2], t, h, j + kTile);
    float score[8][4] = {};
#pragma unroll
    for (int k = 0; k < kQk / 16; ++k)
#pragma unroll
      for (int u = 0; u < 8; u += 2) {
        uint32_t b[4];
        load_b_transposed(b, keys.k + u * 8 * kQkPitch + k * 16, kQkPitch);
        mma(score[u], q.r[k], b[0], b[1]);
        mma(score[u + 1], q.r[k], b[2], b[3]);
      }
    state.weigh(score, j, last, t.scale);
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      const uint32_t a[4] = {pack(score[2 * k][0], score[2 * k][1]),
                             pack(score[2 * k][2], score[2 * k][3]),
                             pack(score[2 * k + 1][0], score[2 * k + 1][1]),
                             pack(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
      for (int u = 0; u < kV / 8; u += 2) {
        uint32_t b[4];
        load_b(b, keys.v + k * 16 * kVPitch + u * 8, kVPitch);
        mma(state.o[u], a, b[0], b[1]);
        mma(state.o[u + 1], a, b[2], b[3]);
      }
    }
  }
  state.store(t, h, row, newest < t.first + t.keys);
}

// The rows of one slot, block by block.
void prefill_slot(const Context& ctx, const MlaCached& a, const Problem& p, const Rows& q,
                  const PrefillScratch& m, const Tensor& workspace, int64_t slot) {
  const int64_t first = a.on_host.cu_seqlens[size_t(slot)],
                count = a.on_host.cu_seqlens[size_t(slot) + 1] - first,
                past = a.on_host.past[size_t(slot)];
  if (count == 0) return;
  for (int64_t at = 0; at < past + count; at += kBlock) {
    const int64_t keys = std::min(kBlock, past + count - at);
    const Tensor rows = a.latents.rows(slot, 1)
                            .reshape({a.latents.dim(1), a.latents.dim(2)})
                            .rows(at, keys);  // [keys, r + rope]
    const Tensor kv = m.kv.rows(0, keys);
    ctx.gemm->run(ctx, Transpose::no, rows.columns(0, p.r), Transpose::yes, a.w_kv_b, {kv},
                  workspace);
    const Call t{.q = q.data + first * q.stride,
                 .kv = kv.as<bf16>(),
                 .k_rope = rows.as<bf16>() + p.r,
                 .q_row = q.stride,
                 .kv_row = kv.stride[0],
                 .cached = p.cached(),
                 .o = a.o.row<bf16>(first),
                 .o_row = a.o.stride[0],
                 .sums = m.sums.as<float>(),
                 .stats = m.stats.as<float>(),
                 .count = int(count),
                 .past = int(past),
                 .first = int(at),
                 .keys = int(keys),
                 .H = p.H,
                 .nope = p.nope,
                 .rope = p.rope,
                 .V = p.V,
                 .scale = float(1 / std::sqrt(double(p.nope + p.rope))) * kLog2e};
    prefill_kernel<<<dim3(unsigned((count + kRows - 1) / kRows), unsigned(p.H)), kThreads,
                     sizeof(Shared), ctx.stream>>>(t);
    SLUICE_LAUNCHED(ctx.stream);
  }
}

}  // namespace

void mla_prefill(const Context& ctx, const MlaCached& a, const PrefillScratch& m,
                 const Tensor& workspace) {
  const mla_cache::Sizes s = mla_cache::sizes_of(a);
  const Problem p = problem_of(a, s.H, s.r, s.nope, s.V);
  SLUICE_CHECK(s.nope <= kV && s.V <= kV, "nope is ", s.nope, ", V ", s.V, ", expected at most ",
               kV);
  SLUICE_CHECK(rows_aligned({a.q, a.w_kv_b, a.o}), "q is ", to_string(a.q), ", w_kv_b ",
               to_string(a.w_kv_b), ", o ", to_string(a.o), ": rows are not aligned");
  if (s.N == 0) return;
  Rows q = rows_of(a.q);
  if (p.theta > 0) {
    const Rows turned = rows_of(m.q);
    SLUICE_CUDA(cudaMemcpy2DAsync(turned.data, size_t(turned.stride) * 2, q.data,
                                  size_t(q.stride) * 2, size_t(turned.stride) * 2, size_t(s.N),
                                  cudaMemcpyDeviceToDevice, ctx.stream));
    turn(ctx, p, s.N, q.data + p.nope, q.stride, p.nope + p.rope, turned.data + p.nope,
         turned.stride, p.nope + p.rope);
    q = turned;
  }
  allow_shared(prefill_kernel, sizeof(Shared));
  for (int64_t slot = 0; slot < s.S; ++slot) prefill_slot(ctx, a, p, q, m, workspace, slot);
}

}  // namespace sluice::cuda
