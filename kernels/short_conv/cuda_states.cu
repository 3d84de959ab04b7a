// kernels/short_conv/cuda_states.cu -- generation: states, and few tokens of many documents.
//
// A thread reads what a document and channel has before it writes it, so that the final state may
// be the initial one's memory. Sums are those of short_conv.cu, to the bit.
#include "kernels/short_conv/cuda_states.cuh"

#include "kernels/base/cuda_check.h"

namespace sluice::cuda::short_conv_gpu {
namespace {

constexpr int kThreads = 128, kHeld = int(kShortConvMaxWidth) - 1;

struct Call {
  Rows x, y;
  const bf16* w;
  const int* cu;
  const bf16* initial;  // [documents, C, W-1], or null
  bf16* final;          // likewise
  int C, W;
};

// The W-1 inputs before a token, the newest last; the taps before them are 0.
struct Held {
  float x[kHeld];

  __device__ void load(const bf16* state, int count) {
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const int i = j - (kHeld - count);
      x[j] = state && i >= 0 ? __bfloat162float(state[i]) : 0;
    }
  }
  __device__ void push(float next) {
#pragma unroll
    for (int j = 0; j + 1 < kHeld; ++j) x[j] = x[j + 1];
    x[kHeld - 1] = next;
  }
  __device__ void store(bf16* state, int count) const {
#pragma unroll
    for (int j = 0; j < kHeld; ++j)
      if (const int i = j - (kHeld - count); i >= 0) state[i] = __float2bfloat16(x[j]);
  }
};

// A thread a document and channel, token by token; with `ends` the tokens between the first and the
// last W-1 are left out.
__global__ void __launch_bounds__(kThreads) walk_kernel(Call t, bool ends) {
  const int c = blockIdx.x * kThreads + threadIdx.x, document = blockIdx.y, held = t.W - 1;
  const int begin = t.cu[document], end = t.cu[document + 1];
  if (c >= t.C || (begin == end && t.initial == t.final)) return;
  const int64_t state = (int64_t(document) * t.C + c) * held;
  float tap[kHeld + 1];
#pragma unroll
  for (int j = 0; j <= kHeld; ++j) {
    const int i = j - (kHeld + 1 - t.W);
    tap[j] = i >= 0 ? __bfloat162float(t.w[c * t.W + i]) : 0;
  }
  Held before;
  before.load(t.initial ? t.initial + state : nullptr, held);
  for (int n = begin; n < end; ++n) {
    const bool first = !ends || n < begin + held;
    if (!first) n = max(n, end - held);  // what follows is for the final state alone
    if (n >= end) break;                 // there is none: W is 1
    const float x = __bfloat162float(t.x[n][c]);
    if (first) {
      float z = 0;
#pragma unroll
      for (int j = 0; j < kHeld; ++j) z += tap[j] * before.x[j];
      z += tap[kHeld] * x;
      t.y[n][c] = __float2bfloat16(z * sigmoid(z));
    }
    before.push(x);
  }
  if (t.final) before.store(t.final + state, held);
}

void launch(const Context& ctx, const ShortConvForward& a, bool ends) {
  const int64_t C = a.x.dim(1), documents = a.cu_seqlens.dim(0) - 1;
  if (C * documents == 0) return;
  SLUICE_CHECK(documents < 65536, documents, " documents");
  const auto state = [](const Tensor& t) { return t ? t.as<bf16>() : nullptr; };
  const dim3 grid(unsigned((C + kThreads - 1) / kThreads), unsigned(documents));
  walk_kernel<<<grid, kThreads, 0, ctx.stream>>>(
      {rows_of(a.x), rows_of(a.y), a.w.as<bf16>(), a.cu_seqlens.as<int32_t>(),
       state(a.initial_state), state(a.final_state), int(C), int(a.w.dim(1))},
      ends);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace

void walk(const Context& ctx, const ShortConvForward& a) {
  launch(ctx, a, false);
}
void walk_ends(const Context& ctx, const ShortConvForward& a) {
  launch(ctx, a, true);
}

}  // namespace sluice::cuda::short_conv_gpu
