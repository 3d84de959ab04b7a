// kernels/mla/cuda_backward.cu -- dq by CTAs of 64 queries, dk and dv by CTAs of 64 keys: each
// gradient has one owner and one order of its sums. The scores are made again in both.
//
// Eight warps: warp w has rows 16 (w % 4) .., and of the columns the half w / 4.
#include "kernels/mla/cuda.cuh"

namespace sluice::cuda {
namespace mla_gpu {
namespace {

constexpr int kThreads = 256;

struct Upstream {
  Rows d_o;
  const float *lse, *delta;  // [Nq, H]
};

// delta[n, h] = sum_v d_o o, a warp each.
__global__ void __launch_bounds__(kThreads)
    delta_kernel(Rows o, Rows d_o, int64_t units, int H, int V, float* delta) {
  const int64_t unit = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (unit >= units) return;
  const int64_t n = unit / H, at = unit % H * V;
  float sum = 0;
  for (int v = threadIdx.x % 32; v < V; v += 32)
    sum += __bfloat162float(o[n][at + v]) * __bfloat162float(d_o[n][at + v]);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) delta[unit] = sum;
}

template <int QK, int V>
struct Shared {
  bf16 q[kTile * kPitch<QK>], d_o[kTile * kPitch<V>], k[kTile * kPitch<QK>], v[kTile * kPitch<V>];
  bf16 ds[kTile * kPitch<kTile>], prob[kTile * kPitch<kTile>];  // prob for keys only
  Span span[kTile];
  float lse[kTile], delta[kTile];  // lse in units of log 2
};

// What a tile of 64 queries brings besides q and d_o.
template <int QK, int V>
__device__ void load_query_numbers(Shared<QK, V>& s, const Problem& p, const Upstream& u, int h,
                                   int n0) {
  if (threadIdx.x >= kTile) return;
  const int i = threadIdx.x, n = n0 + i;
  s.span[i] = n < p.Nq ? p.span[n] : Span{1, 0};
  s.lse[i] = n < p.Nq ? u.lse[int64_t(n) * p.H + h] * kLog2e : 0;
  s.delta[i] = n < p.Nq ? u.delta[int64_t(n) * p.H + h] : 0;
}

// Of query i (of its tile) and key j: probability, and the gradient of q k, the score before
// scaling by `scale`, from the score and the gradient of the probability.
template <int QK, int V>
__device__ float2 pair_gradient(const Shared<QK, V>& s, int i, int j, float score, float dp,
                                float scale) {
  const Span see = s.span[i];
  if (j < see.first || j > see.last) return {0, 0};
  const float prob = exp2f(score * (scale * kLog2e) - s.lse[i]);
  return {prob, prob * (dp - s.delta[i]) * scale};
}

// Puts columns of one gradient, two at a time: 16 rows from n0, `tiles` of 8 columns from c0 on.
template <int tiles, class To>
__device__ void put_rows(const float (&c)[tiles][4], int n0, int end, int c0, To to) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int t = 0; t < tiles; ++t)
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int n = n0 + lane / 4 + 4 * e;
      if (n < end) to(n, c0 + 8 * t + 2 * (lane % 4), c[t][e], c[t][e + 1]);
    }
}
__device__ void put_two(bf16* p, float x, float y, int add) {
  float xy[2] = {x, y};
  put(p, xy, add);
}
// Turns the gradient of columns c, c + 1 of a turned query or key back; j is its key row.
__device__ void turn_back(const Problem& p, int j, int c, float& x, float& y) {
  if (!p.turn || c < p.nope) return;
  const float* t = p.turn + int64_t(j) * p.rope + (c - p.nope);
  turn_pair(x, y, t[0], -t[1]);
}

template <int QK, int V>
__global__ void __launch_bounds__(kThreads)
    queries_kernel(Problem p, Upstream u, Rows dq, int add) {
  extern __shared__ __align__(16) char memory[];
  Shared<QK, V>& s = *reinterpret_cast<Shared<QK, V>*>(memory);
  const int n0 = int(gridDim.x - 1 - blockIdx.x) * kTile, h = blockIdx.y;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r0 = warp % 4 * 16, half = warp / 4;
  load_queries<QK, kThreads>(s.q, p, h, n0);
  load_outputs<V, kThreads>(s.d_o, p, u.d_o, h, n0);
  load_query_numbers(s, p, u, h, n0);
  const int first = p.span[n0].first, end = p.span[min(n0 + kTile, p.Nq) - 1].last + 1;
  float acc[QK / 16][4] = {};
  for (int k0 = first; k0 < end; k0 += kTile) {
    __syncthreads();
    load_keys<QK, kThreads>(s.k, p, h, k0, end);
    load_values<V, kThreads>(s.v, p, h, k0, end);
    wait_for_copies();
    __syncthreads();
    float score[4][4] = {}, dp[4][4] = {};  // [16 queries, 32 keys]
    product_bt<QK>(score, s.q + r0 * kPitch<QK>, s.k + half * 32 * kPitch<QK>);
    product_bt<V>(dp, s.d_o + r0 * kPitch<V>, s.v + half * 32 * kPitch<V>);
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        const int i = r0 + lane / 4 + 4 * e, j = half * 32 + 8 * t + 2 * (lane % 4);
        const float a = pair_gradient(s, i, k0 + j, score[t][e], dp[t][e], p.scale).y;
        const float b = pair_gradient(s, i, k0 + j + 1, score[t][e + 1], dp[t][e + 1], p.scale).y;
        *reinterpret_cast<uint32_t*>(s.ds + i * kPitch<kTile> + j) = pack(a, b);
      }
    __syncthreads();
    product_64(acc, s.ds + r0 * kPitch<kTile>, s.k + half * (QK / 2), kPitch<QK>);
  }
  put_rows(acc, n0 + r0, p.Nq, half * (QK / 2), [&](int n, int c, float x, float y) {
    if (c >= p.width()) return;
    turn_back(p, p.span[n].last, c, x, y);
    put_two(dq[n] + h * p.width() + c, x, y, add);
  });
}

// The first query of [0, Nq] of which `is` holds; it holds for all behind it.
template <class Is>
__device__ int first_query(int Nq, Is is) {
  int low = 0, high = Nq;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (is(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// parts [H, Nk, rope] f32: a head's gradient of the key slice that all heads share.
template <int QK, int V>
__global__ void __launch_bounds__(kThreads)
    keys_kernel(Problem p, Upstream u, Rows dkv, int add, float* parts) {
  extern __shared__ __align__(16) char memory[];
  Shared<QK, V>& s = *reinterpret_cast<Shared<QK, V>*>(memory);
  const int k0 = blockIdx.x * kTile, k1 = min(k0 + kTile, p.Nk), h = blockIdx.y;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r0 = warp % 4 * 16, half = warp / 4;
  load_keys<QK, kThreads>(s.k, p, h, k0, k1);
  load_values<V, kThreads>(s.v, p, h, k0, k1);
  const int begin = first_query(p.Nq, [&](int n) { return p.span[n].last >= k0; });
  const int end = first_query(p.Nq, [&](int n) { return p.span[n].first >= k1; });
  float dk[QK / 16][4] = {}, dv[V / 16][4] = {};
  for (int n0 = begin; n0 < end; n0 += kTile) {
    __syncthreads();
    load_queries<QK, kThreads>(s.q, p, h, n0);
    load_outputs<V, kThreads>(s.d_o, p, u.d_o, h, n0);
    load_query_numbers(s, p, u, h, n0);
    wait_for_copies();
    __syncthreads();
    float score[4][4] = {}, dp[4][4] = {};  // [16 keys, 32 queries]
    product_bt<QK>(score, s.k + r0 * kPitch<QK>, s.q + half * 32 * kPitch<QK>);
    product_bt<V>(dp, s.v + r0 * kPitch<V>, s.d_o + half * 32 * kPitch<V>);
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        const int j = r0 + lane / 4 + 4 * e, i = half * 32 + 8 * t + 2 * (lane % 4);
        const float2 a = pair_gradient(s, i, k0 + j, score[t][e], dp[t][e], p.scale);
        const float2 b = pair_gradient(s, i + 1, k0 + j, score[t][e + 1], dp[t][e + 1], p.scale);
        *reinterpret_cast<uint32_t*>(s.prob + j * kPitch<kTile> + i) = pack(a.x, b.x);
        *reinterpret_cast<uint32_t*>(s.ds + j * kPitch<kTile> + i) = pack(a.y, b.y);
      }
    __syncthreads();
    product_64(dv, s.prob + r0 * kPitch<kTile>, s.d_o + half * (V / 2), kPitch<V>);
    product_64(dk, s.ds + r0 * kPitch<kTile>, s.q + half * (QK / 2), kPitch<QK>);
  }
  const int row = p.nope + p.V;
  put_rows(dv, k0 + r0, p.Nk, half * (V / 2), [&](int n, int c, float x, float y) {
    if (c < p.V) put_two(dkv[n] + h * row + p.nope + c, x, y, add);
  });
  put_rows(dk, k0 + r0, p.Nk, half * (QK / 2), [&](int n, int c, float x, float y) {
    if (c < p.nope)
      put_two(dkv[n] + h * row + c, x, y, add);
    else if (c < p.width())
      *reinterpret_cast<float2*>(parts + (int64_t(h) * p.Nk + n) * p.rope + c - p.nope) = {x, y};
  });
}

// Two columns a thread.
__global__ void __launch_bounds__(kThreads)
    sum_heads_kernel(const float2* parts, Problem p, Rows out, int add) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x,
                pairs = int64_t(p.Nk) * p.rope / 2;
  if (i >= pairs) return;
  float x = 0, y = 0;
  for (int h = 0; h < p.H; ++h) x += parts[h * pairs + i].x, y += parts[h * pairs + i].y;
  const int n = int(i / (p.rope / 2)), c = int(i % (p.rope / 2)) * 2;
  turn_back(p, n, p.nope + c, x, y);
  put_two(out[n] + c, x, y, add);
}

}  // namespace
}  // namespace mla_gpu

using namespace mla_gpu;

void mla_backward(const Context& ctx, const MlaBackward& a, const mla::CudaScratch& memory) {
  const Problem p = problem_of(ctx, a, memory);
  SLUICE_CHECK(
      a.lse.dense() && rows_aligned({a.d_o, a.dq.t, a.dkv.t, a.dk_rope.t}),
      "lse is strided, or rows of d_o or of a gradient do not start at multiples of 16 bytes");
  const Upstream u{rows_of(a.d_o), a.lse.as<float>(), memory.delta.as<float>()};
  const int64_t units = int64_t(p.Nq) * p.H;
  const unsigned query_tiles = unsigned((p.Nq + kTile - 1) / kTile),
                 key_tiles = unsigned((p.Nk + kTile - 1) / kTile);
  if (units > 0) {
    delta_kernel<<<unsigned((units + 7) / 8), kThreads, 0, ctx.stream>>>(
        rows_of(a.o), u.d_o, units, p.H, p.V, memory.delta.as<float>());
    SLUICE_LAUNCHED(ctx.stream);
  }
  for_widths(mla::sizes_of(a), [&]<int QK, int V> {
    const size_t bytes = sizeof(Shared<QK, V>);
    if (units > 0) {
      allow_shared(queries_kernel<QK, V>, bytes);
      queries_kernel<QK, V><<<dim3(query_tiles, unsigned(p.H)), kThreads, bytes, ctx.stream>>>(
          p, u, rows_of(a.dq.t), a.dq.add);
      SLUICE_LAUNCHED(ctx.stream);
    }
    if (key_tiles == 0) return;
    allow_shared(keys_kernel<QK, V>, bytes);
    keys_kernel<QK, V><<<dim3(key_tiles, unsigned(p.H)), kThreads, bytes, ctx.stream>>>(
        p, u, rows_of(a.dkv.t), a.dkv.add, p.rope > 0 ? memory.parts.as<float>() : nullptr);
    SLUICE_LAUNCHED(ctx.stream);
  });
  if (p.rope == 0 || key_tiles == 0) return;
  sum_heads_kernel<<<unsigned((int64_t(p.Nk) * p.rope / 2 + kThreads - 1) / kThreads), kThreads, 0,
                     ctx.stream>>>(reinterpret_cast<const float2*>(memory.parts.data), p,
                                   rows_of(a.dk_rope.t), a.dk_rope.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
