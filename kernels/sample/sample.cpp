// kernels/sample/sample.cpp -- the contract, checked once for every back end.
#include "kernels/sample/sample.h"

#include "kernels/sample/cuda_rule.h"

#include <cmath>

namespace sluice {

namespace cpu {
void sample(const Context& ctx, const Sample& a);
}
namespace cuda {
void sample(const Context& ctx, const Sample& a, const Tensor& rules);
}
namespace reference {
void sample(const Context& ctx, const Sample& a);
}

void sample(const Context& ctx, const Sample& a) {
  const int64_t N = a.logits.dim(0), V = a.logits.dim(1);
  check_shape(a.logits, "logits", {N, V}, a.logits.dtype, ctx.device);
  check_shape(a.token, "token", {N}, DType::i32, ctx.device);
  check_shape(a.logprob, "logprob", {N}, DType::f32, ctx.device);
  SLUICE_CHECK(V > 0 && int64_t(a.rules.size()) == N, "logits are ", to_string(a.logits), ", with ",
               a.rules.size(), " rules");
  for (const SampleRule& r : a.rules)
    SLUICE_CHECK(r.temperature >= 0 && std::isfinite(r.temperature) && r.top_k >= 0 &&
                     r.top_p > 0 && r.top_p <= 1,
                 "temperature is ", r.temperature, ", top_k ", r.top_k, ", top_p ", r.top_p);
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) {
    const ArenaTensor rules = scratch(ctx, DType::u8, {N * int64_t(sizeof(cuda::SampleOnDevice))});
    if (ctx.mode != Mode::plan) cuda::sample(ctx, a, rules);
    return;
  }
#endif
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH_CPU(sample, ctx, a);
}

}  // namespace sluice
