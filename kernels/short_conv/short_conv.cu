// kernels/short_conv/short_conv.cu -- a thread walks kWarpRows rows of E channels with its inputs
// and taps in registers; a row is read once (backward: the W-1 rows around a block twice).
//
// Rows are fetched kGroup at a time, so that enough is under way. Arrays of kTaps have zeros for
// the taps that are not there, so that every loop over taps has a length known to the compiler.
// Initial and final states: cuda_states.cu.
#include "kernels/base/cuda_check.h"
#include "kernels/device/sum_parts.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/short_conv/cuda_states.cuh"
#include "kernels/short_conv/short_conv.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 128, kWarps = 4, kWarpRows = int(kShortConvCudaRows) / kWarps;

// Which document a row is in, for rows that only go up.
struct Documents {
  const int* cu;
  int count, doc, begin, end;

  __device__ Documents(const int* cu, int count, int row) : cu(cu), count(count) {
    int low = 0,
        high = count;  // the last document that begins at or before the row, and is not empty
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (cu[middle] <= row ? low : high) = middle;
    }
    doc = low, begin = cu[doc], end = cu[doc + 1];
  }
  __device__ void move_to(int row) {
    while (row >= end && doc + 1 < count) ++doc, begin = end, end = cu[doc + 1];
  }
};

// Of E channels: the taps, and the inputs of the current row and of those before it. Tap d of here
// multiplies the row d before the current one; those beyond W are 0.
template <int E, int kTaps>
struct Window {
  float tap[kTaps][E], x[kTaps][E];  // x[d]: of the row d before

  __device__ void load_taps(const bf16* w, int c, int W) {
#pragma unroll
    for (int d = 0; d < kTaps; ++d)
#pragma unroll
      for (int e = 0; e < E; ++e)
        tap[d][e] = d < W ? __bfloat162float(w[(c + e) * W + W - 1 - d]) : 0;
  }
  // The rows before r, as far as there are any; which of them count is up to `age`.
  __device__ void fill_before(Rows in, int c, int r) {
#pragma unroll
    for (int d = 0; d + 1 < kTaps; ++d) {
#pragma unroll
      for (int e = 0; e < E; ++e) x[d][e] = 0;
      if (r - 1 - d >= 0) load(x[d], in[r - 1 - d] + c);
    }
  }
  __device__ void push(const float (&next)[E]) {
#pragma unroll
    for (int d = kTaps - 1; d > 0; --d)
#pragma unroll
      for (int e = 0; e < E; ++e) x[d][e] = x[d - 1][e];
#pragma unroll
    for (int e = 0; e < E; ++e) x[0][e] = next[e];
  }
  // age: rows of the document before the current one.
  __device__ void convolve(float (&z)[E], int age) const {
#pragma unroll
    for (int e = 0; e < E; ++e) z[e] = 0;
#pragma unroll
    for (int d = kTaps - 1; d >= 0; --d)
      if (d <= age)
#pragma unroll
        for (int e = 0; e < E; ++e) z[e] += tap[d][e] * x[d][e];
  }
};

// Rows that are fetched together, while those before them are worked on.
constexpr int kGroup = 4;
template <int E>
struct Group {
  Packed<E> row[kGroup];
  __device__ void fetch(Rows from, int c, int begin, int end) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i)
      if (begin + i < end) row[i].fetch(from[begin + i] + c);
  }
};

template <int E, int kTaps>
__global__ void __launch_bounds__(32 * kWarps, 4)
    forward_kernel(Rows x, const bf16* w, const int* cu, int documents, Rows y, int N, int C,
                   int W) {
  const int c = (blockIdx.x * 32 + threadIdx.x) * E;
  const int r0 = (blockIdx.y * kWarps + threadIdx.y) * kWarpRows, r1 = min(r0 + kWarpRows, N);
  if (c >= C || r0 >= N) return;
  Documents at(cu, documents, r0);
  Window<E, kTaps> in;
  in.load_taps(w, c, W);
  in.fill_before(x, c, r0);
  Group<E> now, next;
  next.fetch(x, c, r0, r1);
  for (int g = r0; g < r1; g += kGroup) {
    now = next;
    next.fetch(x, c, g + kGroup, r1);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int r = g + i;
      if (r >= r1) break;
      at.move_to(r);
      float row[E], z[E];
      now.row[i].unpack(row);
      in.push(row);
      in.convolve(z, r - at.begin);
#pragma unroll
      for (int e = 0; e < E; ++e) z[e] *= sigmoid(z[e]);
      store(y[r] + c, z);
    }
  }
}

// dx of a block of rows, and its part of dw [W, C]; a warp kWarpRows of them. dz of a row goes into
// dx of the rows before it: `pending[d]` is dx of the row d before, complete when it leaves.
template <int E, int kTaps>
__global__ void __launch_bounds__(32 * kWarps, 4)
    backward_kernel(Rows x, const bf16* w, const int* cu, int documents, Rows dy, Rows dx,
                    int add_dx, float* parts, int N, int C, int W) {
  __shared__ float sums[kWarps][kTaps * E][33];
  const int c = (blockIdx.x * 32 + threadIdx.x) * E;
  const int r0 = (blockIdx.y * kWarps + threadIdx.y) * kWarpRows, r1 = min(r0 + kWarpRows, N);
  float dw[kTaps][E] = {};
  if (c < C && r0 < N) {
    Documents at(cu, documents, r0);
    Window<E, kTaps> in;
    in.load_taps(w, c, W);
    in.fill_before(x, c, r0);
    float pending[kTaps][E] = {};
    const int stop = min(r1 + kTaps - 1, N);
    Group<E> now, next, d_now, d_next;
    next.fetch(x, c, r0, stop), d_next.fetch(dy, c, r0, stop);
    for (int g = r0; g < r1 + kTaps - 1; g += kGroup) {
      now = next, d_now = d_next;
      next.fetch(x, c, g + kGroup, stop), d_next.fetch(dy, c, g + kGroup, stop);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const int r = g + i;
        if (r < stop) {
          at.move_to(r);
          const int age = r - at.begin;
          float row[E], z[E], d_row[E];
          now.row[i].unpack(row), d_now.row[i].unpack(d_row);
          in.push(row);
          in.convolve(z, age);
#pragma unroll
          for (int e = 0; e < E; ++e) {
            const float s = sigmoid(z[e]);
            z[e] = d_row[e] * s * (1 + z[e] * (1 - s));
          }
#pragma unroll
          for (int d = 0; d < kTaps; ++d)
            if (d <= age)
#pragma unroll
              for (int e = 0; e < E; ++e) {
                pending[d][e] += z[e] * in.tap[d][e];
                if (r < r1) dw[d][e] += z[e] * in.x[d][e];
              }
        }
        const int done = r - (kTaps - 1);
        if (done >= r0 && done < r1) put(dx[done] + c, pending[kTaps - 1], add_dx);
#pragma unroll
        for (int d = kTaps - 1; d > 0; --d)
#pragma unroll
          for (int e = 0; e < E; ++e) pending[d][e] = pending[d - 1][e];
#pragma unroll
        for (int e = 0; e < E; ++e) pending[0][e] = 0;
      }
    }
  }
#pragma unroll
  for (int d = 0; d < kTaps; ++d)
#pragma unroll
    for (int e = 0; e < E; ++e) sums[threadIdx.y][d * E + e][threadIdx.x] = dw[d][e];
  __syncthreads();
  // The warps in order; a warp some of the taps.
  for (int j = threadIdx.y; j < W * E; j += kWarps) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) sum += sums[i][j][threadIdx.x];
    const int d = j / E, e = j % E;
    if (c < C) parts[(int64_t(blockIdx.y) * W + W - 1 - d) * C + c + e] = sum;
  }
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
void check_sizes(const Args& a) {
  SLUICE_CHECK(a.w.dense() && a.x.dim(0) < int64_t(1) << 31, "x is ", to_string(a.x), ", w ",
               to_string(a.w));
}

dim3 grid(int64_t N, int64_t C, int E) {
  constexpr int64_t kRows = kShortConvCudaRows;
  return dim3(unsigned((C + 32 * E - 1) / (32 * E)), unsigned((N + kRows - 1) / kRows));
}

}  // namespace

void short_conv_forward(const Context& ctx, const ShortConvForward& a) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1);
  check_sizes(a);
  // Generation: a token of every sequence.
  if (a.final_state && N < a.cu_seqlens.dim(0)) return short_conv_gpu::walk(ctx, a);
  if (N * C == 0) return;
  const bool aligned = C % 8 == 0 && rows_aligned({a.x, a.y});
  const auto kernel = W <= 4 ? (aligned ? forward_kernel<8, 4> : forward_kernel<1, 4>)
                             : forward_kernel<1, int(kShortConvMaxWidth)>;
  kernel<<<grid(N, C, aligned && W <= 4 ? 8 : 1), dim3(32, kWarps), 0, ctx.stream>>>(
      rows_of(a.x), a.w.as<bf16>(), a.cu_seqlens.as<int32_t>(), int(a.cu_seqlens.dim(0) - 1),
      rows_of(a.y), int(N), int(C), int(W));
  SLUICE_LAUNCHED(ctx.stream);
  if (a.initial_state || a.final_state) short_conv_gpu::walk_ends(ctx, a);
}

void short_conv_backward(const Context& ctx, const ShortConvBackward& a, Tensor parts) {
  const int64_t N = a.x.dim(0), C = a.x.dim(1), W = a.w.dim(1);
  check_sizes(a);
  SLUICE_CHECK(!a.initial_state && !a.dfinal_state && !a.dinitial_state,
               "gradients take no states on CUDA");
  if (C == 0) return;
  if (N > 0) {
    const bool aligned = W <= 4 && C % 8 == 0 && rows_aligned({a.x, a.dy, a.dx.t});
    const auto kernel = aligned  ? backward_kernel<4, 4>
                        : W <= 4 ? backward_kernel<1, 4>
                                 : backward_kernel<1, int(kShortConvMaxWidth)>;
    kernel<<<grid(N, C, aligned ? 4 : 1), dim3(32, kWarps), 0, ctx.stream>>>(
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
