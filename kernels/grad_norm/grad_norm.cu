// kernels/grad_norm/grad_norm.cu -- blocks of elements as on the CPU, of all tensors in a launch;
// their sums in a fixed tree, f64.
#include <algorithm>
#include <cmath>

#include "kernels/base/cuda_check.h"
#include "kernels/device/chunks.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/grad_norm/grad_norm.h"

namespace sluice::cuda {

constexpr int kThreads = 512;

constexpr int kTensors = 512;  // of a launch: 12 KiB of parameters

struct Entry {
  const float* g;
  int64_t n;
  int first;  // chunk of kGradNormElements
  int aligned;
};
struct Entries {
  Entry entry[kTensors];
  int count;
};

// CTA b: chunk b; parts[b]. Lanes of 4 elements in a fixed order, whatever the alignment.
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const __grid_constant__ Entries k, double* parts) {
  const Entry& e = k.entry[entry_of(k.entry, k.count, int(blockIdx.x))];
  const int64_t begin = int64_t(int(blockIdx.x) - e.first) * kGradNormElements,
                end = min(begin + kGradNormElements, e.n);
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x * 4; i + 4 <= end; i += kThreads * 4) {
    float x[4];
    if (e.aligned) {
      load(x, e.g + i);
    } else {
      for (int j = 0; j < 4; ++j) x[j] = e.g[i + j];
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += double(x[j]) * x[j];
  }
  const int64_t rest = begin + (end - begin) / 4 * 4 + threadIdx.x;
  if (rest < end) sum += double(e.g[rest]) * e.g[rest];
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const double* parts, int64_t n, double* out) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = sum;
}

__global__ void clip_kernel(const double* sum_of_squares, double max_norm, StepState* state) {
  const double norm = sqrt(*sum_of_squares);
  state->grad_norm = float(norm);
  state->skip = !isfinite(norm);
  state->grad_scale = max_norm > 0 && norm > max_norm ? float(max_norm / norm) : 1;
}

// Sums of the chunks of `grads` to `parts`; returns how many.
static int64_t sum_chunks(const Context& ctx, std::span<const Tensor> grads, double* parts) {
  Entries k{.count = int(grads.size())};
  int chunks = 0;
  for (size_t i = 0; i < grads.size(); ++i) {
    const int64_t n = grads[i].dim(0);
    k.entry[i] = {grads[i].as<float>(), n, chunks, rows_aligned({grads[i]})};
    chunks += int((n + kGradNormElements - 1) / kGradNormElements);
  }
  if (chunks == 0) return 0;
  squares_kernel<<<unsigned(chunks), kThreads, 0, ctx.stream>>>(k, parts);
  SLUICE_LAUNCHED(ctx.stream);
  return chunks;
}

void grad_norm(const Context& ctx, const GradNorm& a, Tensor parts) {
  double* to = parts.as<double>();
  for (size_t i = 0; i < a.grads.size(); i += kTensors)
    to += sum_chunks(ctx, a.grads.subspan(i, std::min<size_t>(kTensors, a.grads.size() - i)), to);
  sum_kernel<<<1, kThreads, 0, ctx.stream>>>(parts.as<double>(), parts.dim(0),
                                             a.sum_of_squares.as<double>());
  SLUICE_LAUNCHED(ctx.stream);
}

void clip_factor(const Context& ctx, const ClipFactor& a) {
  clip_kernel<<<1, 1, 0, ctx.stream>>>(a.sum_of_squares.as<double>(), a.max_norm, a.state);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
