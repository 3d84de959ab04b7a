// kernels/segment_scan/segment_scan.cu -- a CTA a head and kColumns columns of its state, which no
// other column reads.
#include "kernels/base/cuda_check.h"
#include "kernels/segment_scan/segment_scan.h"

namespace sluice::cuda {

namespace {

constexpr int kColumns = 16, kThreads = 256, kMaxK = 256;

struct Segments {
  const float* operators;
  int64_t stride;  // elements of a segment
  int first, count, reverse, HV, K, V;
};

__global__ void __launch_bounds__(kThreads) segment_scan_kernel(Segments s, float* state) {
  __shared__ float S[2][kMaxK][kColumns];
  const int h = blockIdx.y, c = threadIdx.x % kColumns, column = blockIdx.x * kColumns + c;
  const bool there = column < s.V;
  for (int step = 0; step < s.count; ++step) {
    const int p = s.reverse ? s.first + s.count - 1 - step : s.first + step;
    const float* B = s.operators + p * s.stride + int64_t(h) * s.K * s.V;
    const float* A =
        s.operators + p * s.stride + int64_t(s.HV) * s.K * s.V + int64_t(h) * s.K * s.K;
    for (int i = threadIdx.x / kColumns; i < s.K; i += kThreads / kColumns) {
      float sum = there ? B[i * s.V + column] : 0;
      for (int j = 0; step > 0 && j < s.K; ++j)
        sum += A[s.reverse ? j * s.K + i : i * s.K + j] * S[step % 2][j][c];
      S[(step + 1) % 2][i][c] = sum;
    }
    __syncthreads();
  }
  for (int i = threadIdx.x / kColumns; there && i < s.K; i += kThreads / kColumns)
    state[(int64_t(h) * s.K + i) * s.V + column] = S[s.count % 2][i][c];
}

__global__ void set_identities_kernel(float* t, int64_t n, int K) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) t[i] = i / K % K == i % K;
}

}  // namespace

void set_identities(const Context& ctx, const Tensor& t) {
  const int64_t n = t.numel();
  if (n == 0) return;
  set_identities_kernel<<<unsigned((n + kThreads - 1) / kThreads), kThreads, 0, ctx.stream>>>(
      t.as<float>(), n, int(t.dim(1)));
  SLUICE_LAUNCHED(ctx.stream);
}

void segment_scan(const Context& ctx, const SegmentScan& a) {
  const int HV = int(a.state.dim(0)), K = int(a.state.dim(1)), V = int(a.state.dim(2));
  SLUICE_CHECK(K <= kMaxK, "K is ", K, ", at most ", kMaxK);
  const Segments s{
      a.operators.as<float>(), a.operators.dim(1), int(a.first), int(a.count), a.reverse, HV, K, V};
  segment_scan_kernel<<<dim3(unsigned((V + kColumns - 1) / kColumns), unsigned(HV)), kThreads, 0,
                        ctx.stream>>>(s, a.state.as<float>());
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
