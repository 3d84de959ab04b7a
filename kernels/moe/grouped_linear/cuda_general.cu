// kernels/moe/grouped_linear/cuda_general.cu -- 64 x 64 tiles with mma.sync, elements read one by
// one: for widths and strides that the copy engine does not take.
#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/moe/grouped_linear/cuda.cuh"

namespace sluice::cuda {

constexpr int kTileM = 64, kTileN = 64, kTileK = 32, kThreads = 128, kLd = kTileK + 8;

struct Operand {  // element (outer, k) at data + outer * so + k * sk
  const bf16* data;
  int64_t so, sk;
};

// A tile [64, kTileK] of the operand from row `outer` on, zeros outside of [outers, ks].
__device__ inline void load_tile(bf16* to, const Operand& o, int outer, int outers, int k, int ks) {
  const bool k_first = o.sk == 1;
  for (int i = threadIdx.x; i < 64 * kTileK; i += kThreads) {
    const int r = k_first ? i / kTileK : i % 64, c = k_first ? i % kTileK : i / 64;
    const bool there = outer + r < outers && k + c < ks;
    to[r * kLd + c] = there ? o.data[(outer + r) * o.so + (k + c) * o.sk] : __float2bfloat16(0);
  }
}

template <class T>
__device__ inline void put_pair(T* p, float x, float y, bool both, bool add) {
  float v[1] = {x}, w[1] = {y};
  put(p, v, add);
  if (both) put(p + 1, w, add);
}

template <Product product>
__global__ void __launch_bounds__(kThreads)
    general_kernel(GroupedArgs args, Operand a_all, Operand b_all, int64_t b_expert) {
  __shared__ __align__(16) bf16 a[kTileM * kLd], b[kTileN * kLd];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, wm = warp / 2 * 32,
            wn = warp % 2 * 32;
  GroupedTiles<product, kTileM, kTileN> tiles(args.offsets, args);
  GroupedTile t;
  for (int i = blockIdx.x; tiles.find(i, t); i += gridDim.x) {
    constexpr bool weight = product == Product::weight;
    const int M = weight ? args.F : t.rows, N = product == Product::forward ? args.F : args.D,
              K = weight                        ? t.rows
                  : product == Product::forward ? args.D
                                                : args.F;
    Operand of_a = a_all, of_b = b_all;  // routed rows begin at t.begin
    of_a.data += t.begin * (weight ? of_a.sk : of_a.so);
    of_b.data += weight ? t.begin * of_b.sk : t.expert * b_expert;
    float c[2][4][4] = {};
    for (int k = 0; k < K; k += kTileK) {
      __syncthreads();
      load_tile(a, of_a, t.m, M, k, K);
      load_tile(b, of_b, t.n, N, k, K);
      __syncthreads();
      for (int s = 0; s < kTileK; s += 16) {
        uint32_t fa[2][4], fb[2][4];
        for (int x = 0; x < 2; ++x) {
          load_a(fa[x], a + (wm + 16 * x) * kLd + s, kLd);
          load_b_transposed(fb[x], b + (wn + 16 * x) * kLd + s, kLd);
        }
#pragma unroll
        for (int x = 0; x < 2; ++x)
#pragma unroll
          for (int y = 0; y < 4; ++y)
            mma(c[x][y], fa[x], fb[y / 2][y % 2 * 2], fb[y / 2][y % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int x = 0; x < 2; ++x)
#pragma unroll
      for (int y = 0; y < 4; ++y)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int m = t.m + wm + 16 * x + lane / 4 + 8 * h, n = t.n + wn + 8 * y + lane % 4 * 2;
          if (m >= M || n >= N) continue;
          const float* v = c[x][y] + 2 * h;
          if constexpr (weight)
            put_pair(static_cast<float*>(args.out) + (int64_t(t.expert) * M + m) * args.stride + n,
                     v[0], v[1], n + 1 < N, args.add);
          else
            put_pair(static_cast<bf16*>(args.out) + int64_t(t.begin + m) * args.stride + n, v[0],
                     v[1], n + 1 < N, args.add);
        }
  }
}

template <Product product>
void grouped_general(const Context& ctx, const Tensor& a, const Tensor& b,
                     const GroupedArgs& args) {
  constexpr bool weight = product == Product::weight;
  const int64_t lda = a.stride[0], ldb = product == Product::weight ? b.stride[0] : args.D;
  const Operand of_a{a.as<bf16>(), weight ? 1 : lda, weight ? lda : 1};
  const Operand of_b{b.as<bf16>(), product == Product::forward ? ldb : 1,
                     product == Product::forward ? 1 : ldb};
  general_kernel<product>
      <<<132 * 4, kThreads, 0, ctx.stream>>>(args, of_a, of_b, int64_t(args.F) * args.D);
  SLUICE_LAUNCHED(ctx.stream);
}

template void grouped_general<Product::forward>(const Context&, const Tensor&, const Tensor&,
                                                const GroupedArgs&);
template void grouped_general<Product::data>(const Context&, const Tensor&, const Tensor&,
                                             const GroupedArgs&);
template void grouped_general<Product::weight>(const Context&, const Tensor&, const Tensor&,
                                               const GroupedArgs&);

}  // namespace sluice::cuda
