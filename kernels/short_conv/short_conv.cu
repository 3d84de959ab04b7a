// kernels/short_conv/short_conv.cu -- a thread walks kRows rows of E channels with its inputs and
// taps in registers; a row is read once (backward: the W-1 rows around a block twice).
//
// Taps are right-aligned in arrays of kTaps, those that are not there 0, so that every loop over
// taps has a length known to the compiler. Without states: no generation on the GPU yet.
#include "kernels/base/cuda_check.h"
#include "kernels/device/sum_parts.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/short_conv/short_conv.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 128, kRows = int(kShortConvCudaRows);

// Which document a row is in, for rows that only go up.
struct Documents {
  const int* cu;
  int count, doc;

  __device__ Documents(const int* cu, int count, int row) : cu(cu), count(count) {
    int low = 0,
        high = count;  // the last document that begins at or before the row, and is not empty
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (cu[middle] <= row ? low : high) = middle;
    }
    doc = low;
  }
  __device__ void move_to(int row) {
    while (doc + 1 < count && cu[doc + 1] <= row) ++doc;
  }
  __device__ int begin() const { return cu[doc]; }
  __device__ int end() const { return cu[doc + 1]; }
};

template <int E, int kTaps>
struct Window {
  float tap[kTaps][E], x[kTaps][E];  // x[kTaps - 1] is the current row's

  __device__ void load_taps(const bf16* w, int c, int W) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j)
#pragma unroll
      for (int e = 0; e < E; ++e)
        tap[j][e] = j >= kTaps - W ? __bfloat162float(w[(c + e) * W + j - (kTaps - W)]) : 0;
  }
  __device__ void shift() {
#pragma unroll
    for (int j = 0; j + 1 < kTaps; ++j)
#pragma unroll
      for (int e = 0; e < E; ++e) x[j][e] = x[j + 1][e];
  }
  // The inputs of row - 1 and before, 0 before the document's first.
  __device__ void fill_before(Rows in, int c, int row, int begin) {
#pragma unroll
    for (int j = 1; j < kTaps; ++j) {
      const int from = row - (kTaps - j);
      float v[E] = {};
      if (from >= begin) load(v, in[from] + c);
#pragma unroll
      for (int e = 0; e < E; ++e) x[j][e] = v[e];
    }
  }
  __device__ void forget() {
#pragma unroll
    for (int j = 0; j < kTaps; ++j)
#pragma unroll
      for (int e = 0; e < E; ++e) x[j][e] = 0;
  }
  __device__ float convolve(int e) const {
    float z = 0;
#pragma unroll
    for (int j = 0; j < kTaps; ++j) z += tap[j][e] * x[j][e];
    return z;
  }
};

template <int E, int kTaps>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Rows x, const bf16* w, const int* cu, int documents, Rows y, int N, int C,
                   int W) {
  const int c = (blockIdx.x * kThreads + threadIdx.x) * E;
  if (c >= C) return;
  const int r0 = blockIdx.y * kRows, r1 = min(r0 + kRows, N);
  Documents at(cu, documents, r0);
  Window<E, kTaps> in;
  in.load_taps(w, c, W);
  in.fill_before(x, c, r0, at.begin());
  for (int r = r0; r < r1; ++r) {
    at.move_to(r);
    if (at.begin() == r) in.forget();
    in.shift();
    load(in.x[kTaps - 1], x[r] + c);
    float out[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const float z = in.convolve(e);
      out[e] = z * sigmoid(z);
    }
    store(y[r] + c, out);
  }
}

// dx of a block of rows, and its part of dw [W, C]. dz of a row goes into the dx of the W-1 rows
// before it: `pending[j]` is dx of row r - (kTaps-1) + j, complete when it leaves the array.
template <int E, int kTaps>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows x, const bf16* w, const int* cu, int documents, Rows dy, Rows dx,
                    int add_dx, float* parts, int N, int C, int W) {
  const int c = (blockIdx.x * kThreads + threadIdx.x) * E;
  if (c >= C) return;
  const int r0 = blockIdx.y * kRows, r1 = min(r0 + kRows, N);
  Documents at(cu, documents, r0);
  Window<E, kTaps> in;
  in.load_taps(w, c, W);
  in.fill_before(x, c, r0, at.begin());
  float dw[kTaps][E] = {}, pending[kTaps][E] = {};
  // Past the block only what belongs to the document of its last row goes back into it.
  const auto leave = [&](int row) {  // pending[0] is dx of `row`
    if (row >= r0 && row < r1) put(dx[row] + c, pending[0], add_dx);
#pragma unroll
    for (int j = 0; j + 1 < kTaps; ++j)
#pragma unroll
      for (int e = 0; e < E; ++e) pending[j][e] = pending[j + 1][e];
#pragma unroll
    for (int e = 0; e < E; ++e) pending[kTaps - 1][e] = 0;
  };
  int stop = r1;  // the first row whose dz is not needed
  {
    Documents last(cu, documents, r1 - 1);
    last.move_to(r1 - 1);
    stop = min(last.end(), r1 + kTaps - 1);
  }
  for (int r = r0; r < r1 + kTaps - 1; ++r) {
    if (r < stop) {
      at.move_to(r);
      if (at.begin() == r) in.forget();
      in.shift();
      load(in.x[kTaps - 1], x[r] + c);
      float d[E];
      load(d, dy[r] + c);
      const int first = at.begin() - r + kTaps - 1;  // rows before the document get nothing
#pragma unroll
      for (int e = 0; e < E; ++e) {
        const float z = in.convolve(e), s = sigmoid(z), dz = d[e] * s * (1 + z * (1 - s));
#pragma unroll
        for (int j = 0; j < kTaps; ++j) {
          if (j >= first) pending[j][e] += dz * in.tap[j][e];
          if (r < r1) dw[j][e] += dz * in.x[j][e];
        }
      }
    }
    leave(r - (kTaps - 1));
  }
  float* part = parts + int64_t(blockIdx.y) * W * C + c;
#pragma unroll
  for (int j = 0; j < kTaps; ++j)
    if (j >= kTaps - W)
#pragma unroll
      for (int e = 0; e < E; ++e) part[(j - (kTaps - W)) * C + e] = dw[j][e];
}

// [W, C] sums of parts, in order of the blocks, into dw [C, W].
__global__ void __launch_bounds__(kThreads)
    sum_taps_kernel(const float* parts, int blocks, int C, int W, float* dw, int add) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= W * C) return;
  float sum = 0;
#pragma unroll 8
  for (int b = 0; b < blocks; ++b) sum += parts[int64_t(b) * W * C + i];
  float* to = dw + i % C * W + i / C;
  *to = add ? *to + sum : sum;
}

template <class Args>
void check_stateless(const Args& a) {
  SLUICE_CHECK(!a.initial_state, "short_conv has no states on CUDA yet");
  SLUICE_CHECK(a.w.dense() && a.x.dim(0) < int64_t(1) << 31, "x is ", to_string(a.x), ", w ",
               to_string(a.w));
}

dim3 grid(int64_t N, int64_t C, int E) {
  return dim3(unsigned((C + kThreads * E - 1) / (kThreads * E)), unsigned((N + kRows - 1) / kRows));
}

}  // namespace

void short_conv_forward(const Context& ctx, const ShortConvForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1);
  check_stateless(a);
  SLUICE_CHECK(!a.final_state, "short_conv has no states on CUDA yet");
  if (N * C == 0) return;
  const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.y});
  const auto kernel = W <= 4 ? (aligned ? forward_kernel<8, 4> : forward_kernel<1, 4>)
                             : forward_kernel<1, int(kShortConvMaxWidth)>;
  kernel<<<grid(N, C, aligned && W <= 4 ? 8 : 1), kThreads, 0, ctx.stream>>>(
      rows_of(a.x), a.w.as<bf16>(), a.cu_seqlens.as<int32_t>(), int(a.cu_seqlens.dim(0) - 1),
      rows_of(a.y), int(N), int(C), int(W));
  SLUICE_LAUNCHED(ctx.stream);
}

void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1);
  check_stateless(a);
  SLUICE_CHECK(!a.dfinal_state && !a.dinitial_state, "short_conv has no states on CUDA yet");
  if (C == 0) return;
  if (N > 0) {
    const bool pairs = W <= 4 && C % 8 == 0 && rows_aligned({a.x, a.dy, a.dx.t});
    const auto kernel = pairs    ? backward_kernel<2, 4>
                        : W <= 4 ? backward_kernel<1, 4>
                                 : backward_kernel<1, int(kShortConvMaxWidth)>;
    kernel<<<grid(N, C, pairs ? 2 : 1), kThreads, 0, ctx.stream>>>(
        rows_of(a.x), a.w.as<bf16>(), a.cu_seqlens.as<int32_t>(), int(a.cu_seqlens.dim(0) - 1),
        rows_of(a.dy), rows_of(a.dx.t), a.dx.add, parts.as<float>(), int(N), int(C), int(W));
    SLUICE_LAUNCHED(ctx.stream);
  }
  SLUICE_CHECK(a.dw.t.dense(), "dw is strided");
  sum_taps_kernel<<<unsigned((W * C + kThreads - 1) / kThreads), kThreads, 0, ctx.stream>>>(
      parts.as<float>(), int(parts.dim(0)), int(C), int(W), a.dw.t.as<float>(), a.dw.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
