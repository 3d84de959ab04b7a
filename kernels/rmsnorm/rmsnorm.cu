// kernels/rmsnorm/rmsnorm.cu -- one warp a row, f32; memory bound.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/rmsnorm/rmsnorm.h"

namespace sluice::cuda {

constexpr int kWarps = 8;

__global__ void __launch_bounds__(32 * kWarps)
    forward_kernel(const float* x, int64_t ldx, const float* w, float* y, int64_t ldy, float* rstd,
                   int64_t N, int C, float eps) {
  const int lane = threadIdx.x;
  const int64_t n = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  if (n >= N) return;  // whole warps leave together: warp_sum stays valid
  x += n * ldx;
  y += n * ldy;
  float sum = 0;
  for (int c = lane; c < C; c += 32) sum += x[c] * x[c];
  const float r = rsqrtf(warp_sum(sum) / C + eps);
  for (int c = lane; c < C; c += 32) y[c] = x[c] * r * w[c];
  if (lane == 0) rstd[n] = r;
}

// One warp a block of kRmsNormBlockRows rows, so that its part of dw [C] is summed in row order.
__global__ void backward_kernel(const float* x, int64_t ldx, const float* w, const float* rstd,
                                const float* dy, int64_t lddy, float* dx, int64_t lddx, int add_dx,
                                float* parts, int64_t N, int C) {
  const int lane = threadIdx.x;
  float* dw = parts + int64_t(blockIdx.x) * C;
  for (int c = lane; c < C; c += 32) dw[c] = 0;  // a lane owns its channels throughout
  for (int64_t n = blockIdx.x * kRmsNormBlockRows; n < N && n < (blockIdx.x + 1) * kRmsNormBlockRows;
       ++n) {
    const float *xn = x + n * ldx, *dyn = dy + n * lddy, r = rstd[n];
    float dot = 0;
    for (int c = lane; c < C; c += 32) dot += w[c] * dyn[c] * xn[c];
    const float k = r * r * warp_sum(dot) / C;
    for (int c = lane; c < C; c += 32) {
      const float g = r * (w[c] * dyn[c] - xn[c] * k);
      float* out = dx + n * lddx + c;
      *out = add_dx ? *out + g : g;
      dw[c] += dyn[c] * xn[c] * r;
    }
  }
}

__global__ void sum_parts_kernel(const float* parts, int64_t blocks, int C, float* dw, int add) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= C) return;
  float sum = add ? dw[c] : 0;
  for (int64_t b = 0; b < blocks; ++b) sum += parts[b * C + c];
  dw[c] = sum;
}

void rmsnorm_forward(const Context& ctx, const RmsNormForward& a) {
  const int64_t N = a.x.dim(0);
  if (N == 0) return;
  const dim3 grid(unsigned((N + kWarps - 1) / kWarps)), block(32, kWarps);
  forward_kernel<<<grid, block, 0, ctx.stream>>>(a.x.as<float>(), a.x.stride[0], a.w.as<float>(),
                                                 a.y.as<float>(), a.y.stride[0], a.rstd.as<float>(),
                                                 N, int(a.x.dim(1)), float(a.eps));
  SLUICE_LAUNCHED(ctx.stream);
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), blocks = parts.dim(0);
  const int C = int(a.x.dim(1));
  if (blocks > 0) {
    backward_kernel<<<unsigned(blocks), 32, 0, ctx.stream>>>(
        a.x.as<float>(), a.x.stride[0], a.w.as<float>(), a.rstd.as<float>(), a.dy.as<float>(),
        a.dy.stride[0], a.dx.t.as<float>(), a.dx.t.stride[0], a.dx.add, parts.as<float>(), N, C);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts_kernel<<<(C + 127) / 128, 128, 0, ctx.stream>>>(parts.as<float>(), blocks, C,
                                                            a.dw.t.as<float>(), a.dw.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
