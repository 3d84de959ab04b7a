// kernels/moe/dispatch/cuda_plan.cu -- a counting sort in three steps: parts of 512 choices are
// counted, the counts become first rows, and each part places its choices in their order.
//
// A choice's row is the expert's first, plus those of earlier parts, of earlier warps and of
// earlier lanes: all of them counts, so the sort is stable and no order of execution shows.
#include "kernels/base/cuda_check.h"
#include "kernels/moe/dispatch/dispatch.h"
#include "kernels/moe/dispatch/sizes.h"

namespace sluice::cuda {

constexpr int kPart = int(kDispatchPart), kWarps = kPart / 32, kMostExperts = 1024;

// counts[w, e] of one part: choices of expert e in warp w. Returns the lane's own rank among its
// warp's choices of the same expert. e < 0: no choice.
__device__ inline int count_warps(uint16_t (&counts)[kWarps][kMostExperts], int E, int e) {
  for (int i = threadIdx.x; i < kWarps * E; i += kPart) counts[i / E][i % E] = 0;
  __syncthreads();
  const uint32_t same = __match_any_sync(0xffffffffu, e);
  const int rank = __popc(same & ((1u << threadIdx.x % 32) - 1));
  if (e >= 0 && rank == 0) counts[threadIdx.x / 32][e] = uint16_t(__popc(same));
  __syncthreads();
  return rank;
}

__global__ void __launch_bounds__(kPart)
    count_kernel(const int* experts, int R, int E, int* parts) {
  __shared__ uint16_t counts[kWarps][kMostExperts];
  const int i = int(blockIdx.x) * kPart + int(threadIdx.x);
  count_warps(counts, E, i < R ? experts[i] : -1);
  for (int e = threadIdx.x; e < E; e += kPart) {
    int sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += counts[w][e];
    parts[int64_t(blockIdx.x) * E + e] = sum;
  }
}

// Sum over the lanes up to this one.
__device__ inline int running_sum(int x) {
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, x, offset);
    if (int(threadIdx.x) % 32 >= offset) x += other;
  }
  return x;
}

// One CTA. parts[p, e] becomes the row of the first choice of e in part p.
__global__ void __launch_bounds__(1024)
    offsets_kernel(int* parts, int P, int E, int* offsets, int64_t* counts) {
  __shared__ int total[kMostExperts + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int e = warp; e < E; e += 32) {
    int before = 0;
    for (int p = 0; p < P; p += 32) {
      const int count = p + lane < P ? parts[int64_t(p + lane) * E + e] : 0;
      const int sum = running_sum(count);
      if (p + lane < P) parts[int64_t(p + lane) * E + e] = before + sum - count;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
    if (lane == 0) total[e] = before;
  }
  __syncthreads();
  if (warp == 0) {
    int before = 0;
    for (int e = 0; e < E; e += 32) {
      const int count = e + lane < E ? total[e + lane] : 0;
      const int sum = running_sum(count);
      if (e + lane < E) {
        if (counts) counts[e + lane] += count;
        total[e + lane] = offsets[e + lane] = before + sum - count;
      }
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
    if (lane == 0) offsets[E] = before;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < int64_t(P) * E; i += 1024) parts[i] += total[i % E];
}

__global__ void __launch_bounds__(kPart)
    place_kernel(const int* experts, int R, int E, const int* parts, int* place) {
  __shared__ uint16_t counts[kWarps][kMostExperts];
  const int i = int(blockIdx.x) * kPart + int(threadIdx.x), e = i < R ? experts[i] : -1;
  int row = count_warps(counts, E, e);
  if (e < 0) return;
  row += parts[int64_t(blockIdx.x) * E + e];
  for (int w = 0; w < int(threadIdx.x) / 32; ++w) row += counts[w][e];
  place[i] = row;
}

void dispatch_plan(const Context& ctx, const DispatchPlan& a, const Tensor& parts) {
  const int R = int(a.experts.numel()), E = int(a.offsets.dim(0)) - 1, P = int(parts.dim(0));
  SLUICE_CHECK(E <= kMostExperts, E, " experts, at most 1024 on CUDA");
  const int* experts = a.experts.as<int32_t>();
  int *part = parts.as<int32_t>(), *offsets = a.offsets.as<int32_t>();
  if (R > 0) {
    count_kernel<<<unsigned(P), kPart, 0, ctx.stream>>>(experts, R, E, part);
    SLUICE_LAUNCHED(ctx.stream);
  }
  offsets_kernel<<<1, 1024, 0, ctx.stream>>>(part, P, E, offsets,
                                             a.counts ? a.counts.as<int64_t>() : nullptr);
  SLUICE_LAUNCHED(ctx.stream);
  if (R == 0) return;
  place_kernel<<<unsigned(P), kPart, 0, ctx.stream>>>(experts, R, E, part, a.place.as<int32_t>());
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
