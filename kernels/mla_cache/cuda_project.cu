// kernels/mla_cache/cuda_project.cu -- a small matrix a head: queries into the space of the cache,
// and sums of latents into values. A row depends on no other row, whatever their number.
#include "kernels/mla_cache/cuda_ops.h"

namespace sluice::cuda::mla_cache_gpu {
namespace {

constexpr int kThreads = 128, kM = 64, kTokens = 32, kK = int(kMostLatent);

// y[n, h, m] = sum_k x[n, h, k] A_h[m, k], the matrix stored so or, if transposed, as [k, m].
struct Product {
  const bf16* x;
  const bf16* a;
  bf16* y;
  int64_t x_row, x_head, a_head, a_row, y_row, y_head;  // elements apart
  int N, M, K;
};

template <bool transposed>
struct Shared {
  static constexpr int kWide = transposed ? kM + 8 : kK + 8, kHigh = transposed ? 128 : kM;
  bf16 a[kHigh * kWide];       // [kM, K], or [K, kM]: then K is at most 128
  bf16 x[kTokens * (kK + 8)];  // [kTokens, K]
};

// Rows 0 .. high of 8 columns and more, zeros beyond what is there.
__device__ void stage(bf16* to, int pitch, const bf16* from, int64_t row, int high, int wide,
                      int there_high, int there_wide) {
  for (int i = threadIdx.x; i < high * (wide / 8); i += kThreads) {
    const int r = i / (wide / 8), c = i % (wide / 8) * 8;
    const bool there = r < there_high && c < there_wide;
    copy_16_bytes(to + r * pitch + c, there ? from + r * row + c : from, there);
  }
}

// 64 of m, 32 rows: a warp 16 of m.
template <bool transposed>
__global__ void __launch_bounds__(kThreads) product_kernel(Product p) {
  extern __shared__ __align__(16) char memory[];
  using S = Shared<transposed>;
  S& s = *reinterpret_cast<S*>(memory);
  const int h = blockIdx.x, m0 = blockIdx.y * kM, n0 = blockIdx.z * kTokens;
  const int K = (p.K + 15) / 16 * 16, M = min(kM, p.M - m0);
  const bf16* a = p.a + h * p.a_head;
  if (transposed)
    stage(s.a, S::kWide, a + m0, p.a_row, K, kM, p.K, M);
  else
    stage(s.a, S::kWide, a + m0 * p.a_row, p.a_row, kM, K, M, p.K);
  stage(s.x, kK + 8, p.x + n0 * p.x_row + h * p.x_head, p.x_row, kTokens, K, p.N - n0, p.K);
  wait_for_copies();
  __syncthreads();
  const int m = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  float c[kTokens / 8][4] = {};
  for (int k = 0; k < K; k += 16) {
    uint32_t ar[4];
    if (transposed)
      load_a_transposed(ar, s.a + k * S::kWide + m, S::kWide);
    else
      load_a(ar, s.a + m * S::kWide + k, S::kWide);
#pragma unroll
    for (int t = 0; t < kTokens / 8; t += 2) {
      uint32_t b[4];
      load_b_transposed(b, s.x + t * 8 * (kK + 8) + k, kK + 8);
      mma(c[t], ar, b[0], b[1]);
      mma(c[t + 1], ar, b[2], b[3]);
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens / 8; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int n = n0 + t * 8 + 2 * (lane % 4) + e % 2, row = m + lane / 4 + 8 * (e / 2);
      if (n < p.N && row < M)
        p.y[n * p.y_row + h * p.y_head + m0 + row] = __float2bfloat16(c[t][e]);
    }
}

template <bool transposed>
void launch(const Context& ctx, const Product& p, int H) {
  allow_shared(product_kernel<transposed>, sizeof(Shared<transposed>));
  product_kernel<transposed>
      <<<dim3(unsigned(H), unsigned((p.M + kM - 1) / kM), unsigned((p.N + kTokens - 1) / kTokens)),
         kThreads, sizeof(Shared<transposed>), ctx.stream>>>(p);
  SLUICE_LAUNCHED(ctx.stream);
}

// The rope slices of a row's queries from `from` to `to`, both rows of `width` or more a head.
__global__ void __launch_bounds__(128)
    turn_kernel(Problem p, const bf16* from, int64_t from_row, int from_head, bf16* to,
                int64_t to_row, int to_head) {
  const int n = blockIdx.x, half = p.rope / 2, slot = slot_of(p, n);
  const int position = p.past[slot] + n - p.cu[slot];
  for (int i = threadIdx.x; i < p.H * half; i += 128) {
    const int h = i / half, pair = i % half;
    float x[2];
    load(x, from + n * from_row + h * from_head + 2 * pair);
    float2 v{x[0], x[1]};
    if (p.theta > 0) v = rotate(v, pair, p.rope, position, p.theta);
    x[0] = v.x, x[1] = v.y;
    store(to + n * to_row + h * to_head + 2 * pair, x);
  }
}

}  // namespace

void turn(const Context& ctx, const Problem& p, int64_t N, const bf16* from, int64_t from_row,
          int from_head, bf16* to, int64_t to_row, int to_head) {
  if (N * p.rope == 0) return;
  turn_kernel<<<unsigned(N), 128, 0, ctx.stream>>>(p, from, from_row, from_head, to, to_row,
                                                   to_head);
  SLUICE_LAUNCHED(ctx.stream);
}

void absorb(const Context& ctx, const MlaCached& a, const Problem& p, const Tensor& q) {
  const int64_t width = p.nope + p.rope;
  SLUICE_CHECK(p.nope <= 128, "nope is ", p.nope, ", expected at most 128");
  launch<true>(ctx,
               {.x = a.q.as<bf16>(),
                .a = a.w_kv_b.as<bf16>(),
                .y = q.as<bf16>(),
                .x_row = a.q.stride[0],
                .x_head = width,
                .a_head = (p.nope + p.V) * a.w_kv_b.stride[0],
                .a_row = a.w_kv_b.stride[0],
                .y_row = q.stride[0],
                .y_head = p.cached(),
                .N = int(a.q.dim(0)),
                .M = p.r,
                .K = p.nope},
               p.H);
  turn(ctx, p, a.q.dim(0), a.q.as<bf16>() + p.nope, a.q.stride[0], int(width), q.as<bf16>() + p.r,
       q.stride[0], p.cached());
}

void values(const Context& ctx, const MlaCached& a, const Problem& p, const Tensor& sums) {
  launch<false>(ctx,
                {.x = sums.as<bf16>(),
                 .a = a.w_kv_b.row<bf16>(p.nope),
                 .y = a.o.as<bf16>(),
                 .x_row = sums.stride[0],
                 .x_head = p.r,
                 .a_head = (p.nope + p.V) * a.w_kv_b.stride[0],
                 .a_row = a.w_kv_b.stride[0],
                 .y_row = a.o.stride[0],
                 .y_head = p.V,
                 .N = int(a.q.dim(0)),
                 .M = p.V,
                 .K = p.r},
                p.H);
}

}  // namespace sluice::cuda::mla_cache_gpu
