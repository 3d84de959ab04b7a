// kernels/adamw/adamw.cu -- one pass over the arrays of all shards, in chunks; what changes from
// step to step is read from the step state in the GPU's memory.
#include <algorithm>

#include "kernels/adamw/adamw.h"
#include "kernels/base/cuda_check.h"
#include "kernels/device/chunks.cuh"
#include "kernels/device/rounding.cuh"
#include "kernels/device/vec.cuh"

namespace sluice::cuda {

constexpr int kThreads = 256, kChunk = 16384;  // elements
constexpr int kTensors = 256;  // of a launch: 20 KiB of the 32 that parameters may have

struct Entry {
  float* p;
  const float* grad;
  void *m, *v;
  bf16* copy;  // or null
  StateRounding rounding;
  int64_t n;
  double lr_scale;
  float decay;
  int first;  // chunk
};
struct Entries {
  Entry entry[kTensors];
  int count, chunks;
  const StepState* state;
  double beta1, beta2;
  float c1, c2, eps;  // c = 1 - beta
};
struct Step {
  float lr, scale, b1, b2, c1, c2, m_fix, v_fix, eps, decay;
  int64_t step;
};

// Rounded the same way in whatever loop it stands: which sums are fused is written down.
__device__ void change(float& p, float g, float& m, float& v, const Step& s) {
  const float x = __fmul_rn(g, s.scale);
  m = __fmaf_rn(s.b1, m, __fmul_rn(s.c1, x));
  v = __fmaf_rn(s.b2, v, __fmul_rn(__fmul_rn(s.c2, x), x));
  const float size = __fadd_rn(__fsqrt_rn(__fmul_rn(v, s.v_fix)), s.eps);
  const float direction = __fdiv_rn(__fmul_rn(m, s.m_fix), size);
  p = __fmaf_rn(-s.lr, __fmaf_rn(s.decay, p, direction), p);
}

template <int E, class S>
__device__ void update(const Entry& e, const Step& s, int64_t i) {
  float p[E], g[E], m[E], v[E];
  S *const em = static_cast<S*>(e.m) + i, *const ev = static_cast<S*>(e.v) + i;
  load(g, e.grad + i);
  load(m, em);
  load(v, ev);
  load(p, e.p + i);
#pragma unroll
  for (int j = 0; j < E; ++j) change(p[j], g[j], m[j], v[j], s);
  if constexpr (sizeof(S) == sizeof(bf16)) {
    uint32_t random[E];
    draw(random, e.rounding, i, s.step);
    store_rounded<0>(em, m, random);
    store_rounded<16>(ev, v, random);
  } else {
    store(em, m);
    store(ev, v);
  }
  store(e.p + i, p);
  if (e.copy) store(e.copy + i, p);
}

// A CTA walks over chunks blockIdx.x, blockIdx.x + gridDim.x, ...; 8 elements at a time where all
// arrays are aligned for it, and what is left over one by one.
template <int E, class S>
__global__ void __launch_bounds__(kThreads) adamw_kernel(const __grid_constant__ Entries k) {
  if (k.state->skip) return;
  const double step = double(k.state->step);
  Step s{.lr = 0,
         .scale = k.state->grad_scale,
         .b1 = float(k.beta1),
         .b2 = float(k.beta2),
         .c1 = k.c1,
         .c2 = k.c2,
         .m_fix = float(1 / (1 - pow(k.beta1, step))),
         .v_fix = float(1 / (1 - pow(k.beta2, step))),
         .eps = k.eps,
         .decay = 0,
         .step = k.state->step};
  for (int c = int(blockIdx.x); c < k.chunks; c += int(gridDim.x)) {
    const Entry& e = k.entry[entry_of(k.entry, k.count, c)];
    s.lr = float(double(k.state->lr) * e.lr_scale);
    s.decay = e.decay;
    const int64_t begin = int64_t(c - e.first) * kChunk, end = min(begin + kChunk, e.n);
    for (int64_t i = begin + threadIdx.x * E; i + E <= end; i += kThreads * E)
      update<E, S>(e, s, i);
    if (E > 1)
      for (int64_t i = begin + (end - begin) / E * E + threadIdx.x; i < end; i += kThreads)
        update<1, S>(e, s, i);
  }
}

static void launch(const Context& ctx, std::span<const AdamW> list) {
  const AdamW& a = list.front();
  Entries k{.count = int(list.size()),
            .chunks = 0,
            .state = a.state,
            .beta1 = a.beta1,
            .beta2 = a.beta2,
            .c1 = float(1 - a.beta1),
            .c2 = float(1 - a.beta2),
            .eps = float(a.eps)};
  bool aligned = true;
  for (size_t i = 0; i < list.size(); ++i) {
    const AdamW& t = list[i];
    const int64_t n = t.param.dim(0);
    k.entry[i] = {t.param.as<float>(),
                  t.grad.as<float>(),
                  t.m.data,
                  t.v.data,
                  t.copy ? t.copy.as<bf16>() : nullptr,
                  t.rounding,
                  n,
                  t.lr_scale,
                  float(t.weight_decay),
                  k.chunks};
    aligned =
        aligned && rows_aligned({t.param, t.grad, t.m, t.v, t.copy}) && t.rounding.begin % 4 == 0;
    k.chunks += int((n + kChunk - 1) / kChunk);
  }
  if (k.chunks == 0) return;
  const unsigned grid = unsigned(std::min(k.chunks, 132 * 8));
  const bool narrow = a.m.dtype == DType::bf16;
  const auto kernel = aligned  ? narrow ? adamw_kernel<8, bf16> : adamw_kernel<8, float>
                       : narrow ? adamw_kernel<1, bf16>
                               : adamw_kernel<1, float>;
  kernel<<<grid, kThreads, 0, ctx.stream>>>(k);
  SLUICE_LAUNCHED(ctx.stream);
}

void adamw(const Context& ctx, std::span<const AdamW> list) {
  for (size_t i = 0; i < list.size(); i += kTensors)
    launch(ctx, list.subspan(i, std::min<size_t>(kTensors, list.size() - i)));
}

}  // namespace sluice::cuda
