// kernels/linear/cuda_rowwise.cu -- Mode::batch_invariant: each row of y by itself, in an order of
// sums that depends on D alone.
//
// D is cut into eight slices, each a chain of products in steps of 32: of a row, four lanes read 64
// consecutive bytes, which are the operands of two products in an order of their own (a sum does
// not mind, as long as x follows the same). Then the slices are added in order. Two kernels do so:
// for few rows, when reading w is all there is to do, a CTA makes 16 columns of y, a warp a slice;
// for many it makes 64 columns of 64 rows, slice by slice.
#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/linear/linear.h"

namespace sluice::cuda {
namespace {

constexpr int kSlices = 8, kWarps = kSlices, kColumns = 16, kStep = 32;

struct Outputs {  // [N, F] bf16, or f32
  void* data;
  int64_t stride;
  bool wide;

  __device__ void store(int n, int f, float x) const {
    const int64_t at = n * stride + f;
    if (wide)
      static_cast<float*>(data)[at] = x;
    else
      static_cast<bf16*>(data)[at] = __float2bfloat16(x);
  }
};

__device__ int slice_steps(int D) {
  const int steps = (D + kStep - 1) / kStep;
  return (steps + kSlices - 1) / kSlices;
}

template <bool aligned>
__device__ uint4 eight(const bf16* p) {
  if (aligned) return *reinterpret_cast<const uint4*>(p);
  const auto pair = [&](int i) {
    return uint32_t(__bfloat16_as_ushort(p[i])) | uint32_t(__bfloat16_as_ushort(p[i + 1])) << 16;
  };
  return {pair(0), pair(2), pair(4), pair(6)};
}

// 16 columns of y for rows 8 * tiles * blockIdx.y and on.
// aligned: rows of x start at multiples of 16 bytes.
template <int tiles, bool aligned>
__global__ void __launch_bounds__(kWarps * 32)
    few_rows_kernel(Rows x, Rows w, Outputs y, int N, int D, int F) {
  __shared__ float parts[kWarps][tiles][4][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int f0 = blockIdx.x * kColumns, n0 = blockIdx.y * 8 * tiles;
  const int each = slice_steps(D);
  const int begin = warp * each * kStep, end = min(begin + each * kStep, D);
  const int at = lane % 4 * 8;
  const bf16* w_row[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) w_row[i] = w[min(f0 + lane / 4 + 8 * i, F - 1)] + at;
  const bf16* x_row[tiles];
#pragma unroll
  for (int t = 0; t < tiles; ++t) x_row[t] = x[min(n0 + t * 8 + lane / 4, N - 1)] + at;

  float c[tiles][4] = {};
#pragma unroll 4
  for (int k = begin; k < end; k += kStep) {
    const bool there = k + at < D;  // D is a multiple of 8
    uint4 a[2], b[tiles];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      a[i] = there ? *reinterpret_cast<const uint4*>(w_row[i] + k) : uint4{};
#pragma unroll
    for (int t = 0; t < tiles; ++t) b[t] = there ? eight<aligned>(x_row[t] + k) : uint4{};
    const uint32_t low[4] = {a[0].x, a[1].x, a[0].y, a[1].y};
    const uint32_t high[4] = {a[0].z, a[1].z, a[0].w, a[1].w};
#pragma unroll
    for (int t = 0; t < tiles; ++t) {
      mma(c[t], low, b[t].x, b[t].y);
      mma(c[t], high, b[t].z, b[t].w);
    }
  }
#pragma unroll
  for (int t = 0; t < tiles; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) parts[warp][t][e][lane] = c[t][e];
  __syncthreads();
  for (int i = threadIdx.x; i < tiles * 128; i += kWarps * 32) {
    const int t = i / 128, e = i / 32 % 4, l = i % 32;
    float sum = parts[0][t][e][l];
    for (int p = 1; p < kWarps; ++p) sum += parts[p][t][e][l];
    const int f = f0 + l / 4 + 8 * (e / 2), n = n0 + t * 8 + 2 * (l % 4) + e % 2;
    if (f < F && n < N) y.store(n, f, sum);
  }
}

constexpr int kTile = 64, kStages = 4, kTileThreads = 128;

struct Stage {
  bf16 w[kTile * kStep], x[kTile * kStep];  // rows of 64 bytes
};

// Step k of the tile's rows of w and x, in the background: one group of copies.
__device__ void load_stage(Stage& s, Rows w, Rows x, int f0, int n0, int k, int F, int N, int D) {
  for (int i = threadIdx.x; i < kTile * kStep / 8; i += kTileThreads) {
    const int r = i / 4, c = k + i % 4 * 8;
    const bool in_w = c < D && f0 + r < F, in_x = c < D && n0 + r < N;
    copy_16_bytes(s.w + i * 8, in_w ? w[f0 + r] + c : w[0], in_w);
    copy_16_bytes(s.x + i * 8, in_x ? x[n0 + r] + c : x[0], in_x);
  }
}

// 64 columns of 64 rows; a warp 32 of each.
__global__ void __launch_bounds__(kTileThreads)
    many_rows_kernel(Rows x, Rows w, Outputs y, int N, int D, int F) {
  __shared__ __align__(16) Stage stages[kStages];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int f0 = blockIdx.x * kTile, n0 = blockIdx.y * kTile;
  const int wf = warp % 2 * 32, wn = warp / 2 * 32;
  const int steps = (D + kStep - 1) / kStep, each = slice_steps(D);
  const auto prefetch = [&](int step) {
    if (step < steps) load_stage(stages[step % kStages], w, x, f0, n0, step * kStep, F, N, D);
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  for (int i = 0; i + 1 < kStages; ++i) prefetch(i);
  float c[2][4][4] = {}, total[2][4][4] = {};
  int slices = 0;
  const auto end_slice = [&] {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int t = 0; t < 4; ++t)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          total[m][t][e] = slices == 0 ? c[m][t][e] : total[m][t][e] + c[m][t][e];
          c[m][t][e] = 0;
        }
    ++slices;
  };
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    prefetch(step + kStages - 1);
    const Stage& s = stages[step % kStages];
    const auto row = [&](const bf16* tile, int r) {
      return *reinterpret_cast<const uint4*>(tile + (r + lane / 4) * kStep + lane % 4 * 8);
    };
    uint4 a[2][2];
#pragma unroll
    for (int m = 0; m < 2; ++m)
      a[m][0] = row(s.w, wf + m * 16), a[m][1] = row(s.w, wf + m * 16 + 8);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const uint4 b = row(s.x, wn + t * 8);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const uint32_t low[4] = {a[m][0].x, a[m][1].x, a[m][0].y, a[m][1].y};
        const uint32_t high[4] = {a[m][0].z, a[m][1].z, a[m][0].w, a[m][1].w};
        mma(c[m][t], low, b.x, b.y);
        mma(c[m][t], high, b.z, b.w);
      }
    }
    if ((step + 1) % each == 0) end_slice();
  }
  while (slices < kSlices) end_slice();  // the last one, and those that D does not reach: zeros
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int f = f0 + wf + m * 16 + lane / 4 + 8 * (e / 2);
        const int n = n0 + wn + t * 8 + 2 * (lane % 4) + e % 2;
        if (f < F && n < N) y.store(n, f, total[m][t][e]);
      }
}

}  // namespace

void linear_rowwise(const Context& ctx, const LinearForward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  if (N == 0 || F == 0) return;
  SLUICE_CHECK(D % 8 == 0 && rows_aligned({a.w}), "x is ", to_string(a.x), ", w ", to_string(a.w),
               ": rows are not aligned to 16 bytes");
  const Outputs y{a.y.data, a.y.stride[0], a.y.dtype == DType::f32};
  const auto launch = [&](auto kernel, int threads, int64_t columns, int64_t rows) {
    const dim3 grid(unsigned((F + columns - 1) / columns), unsigned((N + rows - 1) / rows));
    kernel<<<grid, unsigned(threads), 0, ctx.stream>>>(rows_of(a.x), rows_of(a.w), y, int(N),
                                                       int(D), int(F));
    SLUICE_LAUNCHED(ctx.stream);
  };
  constexpr int kFew = kWarps * 32;
  if (!rows_aligned({a.x})) return launch(few_rows_kernel<4, false>, kFew, kColumns, 32);
  if (N <= 8) return launch(few_rows_kernel<1, true>, kFew, kColumns, 8);
  if (N <= 16) return launch(few_rows_kernel<2, true>, kFew, kColumns, 16);
  if (N <= 32) return launch(few_rows_kernel<4, true>, kFew, kColumns, 32);
  launch(many_rows_kernel, kTileThreads, kTile, kTile);
}

}  // namespace sluice::cuda
