// kernels/linear/cuda_rowwise.cu -- Mode::batch_invariant: each row of y by itself, in an order of
// sums that depends on D alone; made for few rows, when reading w is all there is to do.
//
// A CTA makes 16 columns of y. Its eight warps share D, in steps of 32: of a row, four lanes read
// 64 consecutive bytes, which are the operands of two products in an order of their own (a sum does
// not mind, as long as x follows the same). Then the parts of the warps are added in order.
#include "kernels/base/cuda_check.h"
#include "kernels/device/mma.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/linear/linear.h"

namespace sluice::cuda {
namespace {

constexpr int kWarps = 8, kColumns = 16, kStep = 32;

// 16 columns of y for rows 8 * tiles * blockIdx.y and on.
template <int tiles>
__global__ void __launch_bounds__(kWarps * 32)
    rowwise_kernel(Rows x, Rows w, Rows y, int N, int D, int F) {
  __shared__ float parts[kWarps][tiles][4][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int f0 = blockIdx.x * kColumns, n0 = blockIdx.y * 8 * tiles;
  const int steps = (D + kStep - 1) / kStep, each = (steps + kWarps - 1) / kWarps;
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
    for (int t = 0; t < tiles; ++t)
      b[t] = there ? *reinterpret_cast<const uint4*>(x_row[t] + k) : uint4{};
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
    if (f < F && n < N) y[n][f] = __float2bfloat16(sum);
  }
}

}  // namespace

void linear_rowwise(const Context& ctx, const LinearForward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  if (N == 0 || F == 0) return;
  SLUICE_CHECK(D % 8 == 0 && rows_aligned({a.x, a.w}), "x is ", to_string(a.x), ", w ",
               to_string(a.w), ": rows are not aligned to 16 bytes");
  const auto launch = [&](auto kernel, int64_t tiles) {
    kernel<<<dim3(unsigned((F + kColumns - 1) / kColumns),
                  unsigned((N + 8 * tiles - 1) / (8 * tiles))),
             kWarps * 32, 0, ctx.stream>>>(rows_of(a.x), rows_of(a.w), rows_of(a.y), int(N), int(D),
                                           int(F));
    SLUICE_LAUNCHED(ctx.stream);
  };
  if (N <= 8) return launch(rowwise_kernel<1>, 1);
  if (N <= 16) return launch(rowwise_kernel<2>, 2);
  if (N <= 32) return launch(rowwise_kernel<4>, 4);
  launch(rowwise_kernel<8>, 8);
}

}  // namespace sluice::cuda
