// kernels/mla/cuda_forward.cu -- a CTA 64 queries of a head, keys 64 at a time; a warp 16 queries,
// their scores and outputs in registers.
#include "kernels/mla/cuda.cuh"

namespace sluice::cuda {
namespace mla_gpu {
namespace {

constexpr int kThreads = 128;

template <int QK, int V>
struct Shared {
  bf16 q[kTile * kPitch<QK>], k[kTile * kPitch<QK>], v[kTile * kPitch<V>];
};

// Two rows of a warp's 16 that a thread has parts of.
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // top in units of log 2
};

// Masks and scales the scores of keys k0 .. k0 + 63, makes them probabilities, and scales acc by
// what the new largest score makes of the old one.
template <int tiles>
__device__ void softmax_step(float (&s)[8][4], Softmax& m, float (&acc)[tiles][4],
                             const Span (&span)[2], int k0, float scale) {
  const int lane = threadIdx.x % 32;
  float top[2] = {m.top[0], m.top[1]};
#pragma unroll
  for (int t = 0; t < 8; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int j = k0 + 8 * t + 2 * (lane % 4) + e % 2;
      const Span& see = span[e / 2];
      s[t][e] = j >= see.first && j <= see.last ? s[t][e] * scale : -INFINITY;
      top[e / 2] = fmaxf(top[e / 2], s[t][e]);
    }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
    const float old = m.top[r];
    m.top[r] = top[r];
    if (top[r] == -INFINITY) top[r] = 0;  // nothing seen yet: every exp below is 0
    const float rescale = exp2f(old - top[r]);
    m.sum[r] *= rescale;
#pragma unroll
    for (int t = 0; t < tiles; ++t) acc[t][2 * r] *= rescale, acc[t][2 * r + 1] *= rescale;
  }
#pragma unroll
  for (int t = 0; t < 8; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[t][e] = exp2f(s[t][e] - top[e / 2]);
      m.sum[e / 2] += s[t][e];
    }
}

template <int QK, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Problem p, Rows o, float* lse, float* max_logit) {
  extern __shared__ __align__(16) char memory[];
  Shared<QK, V>& s = *reinterpret_cast<Shared<QK, V>*>(memory);
  // The longest first: what sees the most keys.
  const int n0 = int(gridDim.x - 1 - blockIdx.x) * kTile, h = blockIdx.y;
  const int lane = threadIdx.x % 32, r0 = threadIdx.x / 32 * 16, row = n0 + r0 + lane / 4;
  load_queries<QK, kThreads>(s.q, p, h, n0);
  const Span none{1, 0};
  const Span span[2] = {row < p.Nq ? p.span[row] : none, row + 8 < p.Nq ? p.span[row + 8] : none};
  const int first = p.span[n0].first, end = p.span[min(n0 + kTile, p.Nq) - 1].last + 1;

  Softmax m;
  float acc[V / 8][4] = {};
  for (int k0 = first; k0 < end; k0 += kTile) {
    __syncthreads();
    load_keys<QK, kThreads>(s.k, p, h, k0, end);
    load_values<V, kThreads>(s.v, p, h, k0, end);
    wait_for_copies();
    __syncthreads();
    float score[8][4] = {};
    product_bt<QK>(score, s.q + r0 * kPitch<QK>, s.k);
    softmax_step(score, m, acc, span, k0, p.scale * kLog2e);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const uint32_t a[4] = {pack(score[2 * k][0], score[2 * k][1]),
                             pack(score[2 * k][2], score[2 * k][3]),
                             pack(score[2 * k + 1][0], score[2 * k + 1][1]),
                             pack(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
      for (int t = 0; t < V / 8; t += 2) {
        uint32_t b[4];
        load_b(b, s.v + k * 16 * kPitch<V> + t * 8, kPitch<V>);
        mma(acc[t], a, b[0], b[1]);
        mma(acc[t + 1], a, b[2], b[3]);
      }
    }
  }
  float largest = -INFINITY;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    m.sum[r] += __shfl_xor_sync(0xffffffffu, m.sum[r], 1);
    m.sum[r] += __shfl_xor_sync(0xffffffffu, m.sum[r], 2);
    const int n = row + 8 * r;
    if (n >= p.Nq) continue;
    const float inverse = 1 / m.sum[r];
    largest = fmaxf(largest, m.top[r] * kLn2);
    if (lane % 4 == 0) lse[int64_t(n) * p.H + h] = (m.top[r] + log2f(m.sum[r])) * kLn2;
#pragma unroll
    for (int t = 0; t < V / 8; ++t) {
      const int c = 8 * t + 2 * (lane % 4);
      if (c < p.V)
        *reinterpret_cast<uint32_t*>(o[n] + h * p.V + c) =
            pack(acc[t][2 * r] * inverse, acc[t][2 * r + 1] * inverse);
    }
  }
  if (!max_logit) return;
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (lane == 0 && largest > -INFINITY) raise(max_logit + h, largest);
}

}  // namespace

}  // namespace mla_gpu

using namespace mla_gpu;

void mla_forward(const Context& ctx, const MlaForward& a, const mla::CudaScratch& memory) {
  const Problem p = problem_of(ctx, a, memory);
  SLUICE_CHECK(a.lse.dense() && a.o.stride[0] % 2 == 0, "o or lse is strided oddly");
  if (p.Nq == 0) return;
  for_widths(mla::sizes_of(a), [&]<int QK, int V> {
    allow_shared(forward_kernel<QK, V>, sizeof(Shared<QK, V>));
    forward_kernel<QK, V><<<dim3(unsigned((p.Nq + kTile - 1) / kTile), unsigned(p.H)), kThreads,
                            sizeof(Shared<QK, V>), ctx.stream>>>(
        p, rows_of(a.o), a.lse.as<float>(), a.max_logit ? a.max_logit.as<float>() : nullptr);
    SLUICE_LAUNCHED(ctx.stream);
  });
}

}  // namespace sluice::cuda
