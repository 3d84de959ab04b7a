// kernels/moe/dispatch/dispatch.cu -- memory bound. Both directions walk tokens: a routed row is
// one token's, so nothing is atomic, and a token's sum runs over its choices in their order.
#include "kernels/base/cuda_check.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/moe/dispatch/dispatch.h"

namespace sluice::cuda {

constexpr int kThreads = 128, kMostChoices = 32;

struct Places {  // [N, k]
  const int* data;
  int k;
  __device__ int at(int64_t n, int j) const { return data[n * k + j]; }
};

// A CTA a token, E columns a thread.
template <int E>
__global__ void __launch_bounds__(kThreads) dispatch_kernel(Rows x, Places place, Rows xs, int D) {
  const int64_t n = blockIdx.x;
  for (int d = threadIdx.x * E; d < D; d += kThreads * E) {
    float v[E];
    load(v, x[n] + d);
    for (int j = 0; j < place.k; ++j) store(xs[place.at(n, j)] + d, v);
  }
}

// y[n] (+)= sum over j of weights[n, j] rows[place[n, j]]; without weights each counts once.
template <int E, bool weighted>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Rows rows, Places place, const float* weights, int64_t weights_stride, Rows y,
                  int add, int D) {
  const int64_t n = blockIdx.x;
  for (int d = threadIdx.x * E; d < D; d += kThreads * E) {
    float sum[E] = {};
#pragma unroll 4
    for (int j = 0; j < place.k; ++j) {
      float v[E];
      load(v, rows[place.at(n, j)] + d);
      const float w = weighted ? weights[n * weights_stride + j] : 1;
#pragma unroll
      for (int e = 0; e < E; ++e) sum[e] += w * v[e];
    }
    put(y[n] + d, sum, add);
  }
}

// A CTA a token, a warp a choice.
template <int E>
__global__ void combine_backward_kernel(Rows ys, Places place, const float* weights,
                                        int64_t weights_stride, Rows dy, Rows dys, int add_ys,
                                        float* dweights, int64_t dweights_stride, int add_weights,
                                        int D) {
  const int64_t n = blockIdx.x;
  const int j = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t r = place.at(n, j);
  const float w = weights[n * weights_stride + j];
  float dot = 0;
#pragma unroll 4
  for (int d = lane * E; d < D; d += 32 * E) {
    float g[E], v[E];
    load(g, dy[n] + d), load(v, ys[r] + d);
#pragma unroll
    for (int e = 0; e < E; ++e) dot += g[e] * v[e], g[e] *= w;
    put(dys[r] + d, g, add_ys);
  }
  dot = warp_sum(dot);
  if (lane != 0) return;
  float v[1] = {dot};
  put(dweights + n * dweights_stride + j, v, add_weights);
}

static Places places_of(const Tensor& place) {
  SLUICE_CHECK(place.dim(1) <= kMostChoices && place.dense(), "place is ", to_string(place),
               ", at most 32 choices on CUDA, dense");
  return {place.as<int32_t>(), int(place.dim(1))};
}

static bool wide(int64_t D, std::initializer_list<Tensor> tensors) {
  return D % 8 == 0 && rows_aligned(tensors);
}

void dispatch_forward(const Context& ctx, const DispatchForward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1);
  if (N == 0) return;
  const auto kernel = wide(D, {a.x, a.xs}) ? dispatch_kernel<8> : dispatch_kernel<1>;
  kernel<<<unsigned(N), kThreads, 0, ctx.stream>>>(rows_of(a.x), places_of(a.place), rows_of(a.xs),
                                                   int(D));
  SLUICE_LAUNCHED(ctx.stream);
}

void dispatch_backward(const Context& ctx, const DispatchBackward& a) {
  const int64_t N = a.dx.t.dim(0), D = a.dxs.dim(1);
  if (N == 0) return;
  const auto kernel = wide(D, {a.dxs, a.dx.t}) ? gather_kernel<8, false> : gather_kernel<1, false>;
  kernel<<<unsigned(N), kThreads, 0, ctx.stream>>>(rows_of(a.dxs), places_of(a.place), nullptr, 0,
                                                   rows_of(a.dx.t), a.dx.add, int(D));
  SLUICE_LAUNCHED(ctx.stream);
}

void combine_forward(const Context& ctx, const CombineForward& a) {
  const int64_t N = a.y.dim(0), D = a.y.dim(1);
  if (N == 0) return;
  const auto kernel = wide(D, {a.ys, a.y}) ? gather_kernel<8, true> : gather_kernel<1, true>;
  kernel<<<unsigned(N), kThreads, 0, ctx.stream>>>(rows_of(a.ys), places_of(a.place),
                                                   a.weights.as<float>(), a.weights.stride[0],
                                                   rows_of(a.y), false, int(D));
  SLUICE_LAUNCHED(ctx.stream);
}

void combine_backward(const Context& ctx, const CombineBackward& a) {
  const int64_t N = a.dy.dim(0), D = a.dy.dim(1), k = a.place.dim(1);
  if (N == 0) return;
  const auto kernel =
      wide(D, {a.ys, a.dy, a.dys.t}) ? combine_backward_kernel<8> : combine_backward_kernel<1>;
  kernel<<<unsigned(N), unsigned(32 * k), 0, ctx.stream>>>(
      rows_of(a.ys), places_of(a.place), a.weights.as<float>(), a.weights.stride[0], rows_of(a.dy),
      rows_of(a.dys.t), a.dys.add, a.dweights.t.as<float>(), a.dweights.t.stride[0], a.dweights.add,
      int(D));
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
