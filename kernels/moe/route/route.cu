// kernels/moe/route/route.cu -- a warp a token, its scores in registers.
#include <cfloat>

#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/moe/route/route.h"

namespace sluice::cuda {

constexpr int kThreads = 128, kTokens = kThreads / 32;  // a CTA
constexpr int kMostChoices = 32;                        // one a lane

struct RouteSizes {
  int N, E, k;
  int64_t in_stride, scores_stride, weights_stride;
  bool softmax, share;
  float scale;
};

__device__ inline float warp_max(float x) {
  for (int offset = 16; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Larger values have larger keys, of equals the lowest index; NaN is below every number.
__device__ inline uint64_t choice_key(float value, int e) {
  const uint32_t bits = __float_as_uint(value + 0.0F);  // -0 becomes 0, its equal
  const uint32_t order = bits >> 31 ? ~bits : bits | 0x80000000u;
  return uint64_t(isnan(value) ? 1u : order) << 32 | uint32_t(~e);
}

// Lane l has experts l + 32 i. s: logits on entry.
template <int P>
__device__ inline void score(float (&s)[P], const RouteSizes& a, int lane) {
  if (!a.softmax) {
#pragma unroll
    for (int i = 0; i < P; ++i) s[i] = 1 / (1 + expf(-s[i]));
    return;
  }
  float max = -FLT_MAX, sum = 0;
#pragma unroll
  for (int i = 0; i < P; ++i)
    if (lane + 32 * i < a.E) max = fmaxf(max, s[i]);
  max = warp_max(max);
#pragma unroll
  for (int i = 0; i < P; ++i) {
    s[i] = expf(s[i] - max);
    if (lane + 32 * i < a.E) sum += s[i];
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < P; ++i) s[i] /= sum;
}

// The expert of choice `lane`.
template <int P>
__device__ inline int choose(const float (&s)[P], const float* bias, const RouteSizes& a,
                             int lane) {
  uint64_t key[P];
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int e = lane + 32 * i;
    key[i] = e < a.E ? choice_key(s[i] + bias[e], e) : 0;
  }
  int mine = 0;
  for (int j = 0; j < a.k; ++j) {
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < P; ++i) best = max(best, key[i]);
    for (int offset = 16; offset > 0; offset /= 2)
      best = max(best, __shfl_xor_sync(0xffffffffu, best, offset));
#pragma unroll
    for (int i = 0; i < P; ++i)
      if (key[i] == best) key[i] = 0;
    if (lane == j) mine = int(~uint32_t(best));
  }
  return mine;
}

template <int P>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(RouteSizes a, const float* logits, const float* bias, const int* given,
                   int64_t given_stride, float* scores, int* experts, float* weights) {
  const int n = int(blockIdx.x) * kTokens + int(threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (n >= a.N) return;
  float s[P];
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int e = lane + 32 * i;
    s[i] = e < a.E ? logits[n * a.in_stride + e] : 0;
  }
  score(s, a, lane);
#pragma unroll
  for (int i = 0; i < P; ++i)
    if (lane + 32 * i < a.E) scores[n * a.scores_stride + lane + 32 * i] = s[i];
  int mine = 0;
  if (given)
    mine = lane < a.k ? given[n * given_stride + lane] : 0;
  else
    mine = choose(s, bias, a, lane);
  __syncwarp();  // the scores are read by other lanes than wrote them
  const float chosen = lane < a.k ? scores[n * a.scores_stride + mine] : 0;
  const float sum = warp_sum(chosen);
  if (lane >= a.k) return;
  experts[int64_t(n) * a.k + lane] = mine;
  weights[n * a.weights_stride + lane] = a.scale * (a.share ? chosen / (sum + 1e-20F) : chosen);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(RouteSizes a, const float* scores, const int* experts, const float* dweights,
                    T* dlogits, int64_t dlogits_stride, int add) {
  const int n = int(blockIdx.x) * kTokens + int(threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (n >= a.N) return;
  const bool chose = lane < a.k;
  const int mine = chose ? experts[int64_t(n) * a.k + lane] : -1;
  const float s = chose ? scores[n * a.scores_stride + mine] : 0;
  const float dw = chose ? dweights[n * a.weights_stride + lane] : 0;
  const float divisor = a.share ? warp_sum(s) + 1e-20F : 1;
  const float dot = a.share ? warp_sum(dw * (s / divisor)) : 0;
  const float ds = chose ? a.scale / divisor * (dw - dot) : 0;
  const float mean = a.softmax ? warp_sum(ds * s) : 0;
  for (int base = 0; base < a.E; base += 32) {
    const int e = base + lane;
    const float se = a.softmax && e < a.E ? scores[n * a.scores_stride + e] : 0;
    float dz = a.softmax ? -se * mean : 0;
    for (int j = 0; j < a.k; ++j) {
      const int of = __shfl_sync(0xffffffffu, mine, j);
      const float ds_j = __shfl_sync(0xffffffffu, ds, j), s_j = __shfl_sync(0xffffffffu, s, j);
      if (of == e) dz = a.softmax ? s_j * (ds_j - mean) : ds_j * s_j * (1 - s_j);
    }
    if (e >= a.E) continue;
    float v[1] = {dz};
    put(dlogits + n * dlogits_stride + e, v, add);
  }
}

static RouteSizes sizes_of(const Tensor& scores, int64_t k, const RouteParams& p) {
  const int64_t N = scores.dim(0), E = scores.dim(1);
  SLUICE_CHECK(E <= 1024 && k <= kMostChoices, k, " choices of ", E,
               " experts, at most 32 of 1024 on CUDA");
  return {.N = int(N),
          .E = int(E),
          .k = int(k),
          .in_stride = 0,
          .scores_stride = scores.stride[0],
          .weights_stride = 0,
          .softmax = p.score == RouterScore::softmax,
          .share = p.renormalize && k > 1,
          .scale = float(p.scale)};
}

void route_forward(const Context& ctx, const RouteForward& a) {
  RouteSizes s = sizes_of(a.scores, a.experts.dim(1), a.params);
  s.in_stride = a.logits.stride[0], s.weights_stride = a.weights.stride[0];
  if (s.N == 0) return;
  const int* given = a.given ? a.given.as<int32_t>() : nullptr;
  const int64_t given_stride = a.given ? a.given.stride[0] : 0;
  const auto run = [&](auto kernel) {
    kernel<<<unsigned((s.N + kTokens - 1) / kTokens), kThreads, 0, ctx.stream>>>(
        s, a.logits.as<float>(), a.bias.as<float>(), given, given_stride, a.scores.as<float>(),
        a.experts.as<int32_t>(), a.weights.as<float>());
  };
  if (s.E <= 64)
    run(forward_kernel<2>);
  else if (s.E <= 256)
    run(forward_kernel<8>);
  else
    run(forward_kernel<32>);
  SLUICE_LAUNCHED(ctx.stream);
}

void route_backward(const Context& ctx, const RouteBackward& a) {
  RouteSizes s = sizes_of(a.scores, a.experts.dim(1), a.params);
  s.weights_stride = a.dweights.stride[0];
  if (s.N == 0) return;
  const Tensor& d = a.dlogits.t;
  const unsigned grid = unsigned((s.N + kTokens - 1) / kTokens);
  if (d.dtype == DType::bf16)
    backward_kernel<<<grid, kThreads, 0, ctx.stream>>>(
        s, a.scores.as<float>(), a.experts.as<int32_t>(), a.dweights.as<float>(), d.as<bf16>(),
        d.stride[0], a.dlogits.add);
  else
    backward_kernel<<<grid, kThreads, 0, ctx.stream>>>(
        s, a.scores.as<float>(), a.experts.as<int32_t>(), a.dweights.as<float>(), d.as<float>(),
        d.stride[0], a.dlogits.add);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
