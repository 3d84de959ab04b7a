// kernels/moe/route/route.cpp -- the contract, checked once for every back end.
#include "kernels/moe/route/route.h"

namespace sluice {

namespace cuda {
void route_forward(const Context& ctx, const RouteForward& a);
void route_backward(const Context& ctx, const RouteBackward& a);
}  // namespace cuda
namespace cpu {
void route_forward(const Context& ctx, const RouteForward& a);
void route_backward(const Context& ctx, const RouteBackward& a);
}  // namespace cpu
namespace reference {
void route_forward(const Context& ctx, const RouteForward& a);
void route_backward(const Context& ctx, const RouteBackward& a);
}  // namespace reference

void check_experts(const Context& ctx, const Tensor& experts, int64_t N, int64_t E,
                   const char* label, SourceLine at) {
  auto broken = [&](const auto&... detail) { fail(at.file, at.line, label, cat(detail...)); };
  const int64_t k = experts.rank == 2 ? experts.dim(1) : 0;
  if (experts.dtype != DType::i32 || experts.device != ctx.device || k < 1 || k > E ||
      experts.dim(0) != N || !experts.dense())
    broken("is ", to_string(experts), ", expected dense i32 [", N, ", k], 1 <= k <= ", E, ", on ",
           name(ctx.device));
  if (ctx.mode == Mode::plan || ctx.device != Device::cpu) return;
  for (int64_t i = 0; i < N * k; ++i) {
    const int32_t e = experts.as<int32_t>()[i];
    if (e < 0 || e >= E) broken("of token ", i / k, " is ", e, ", there are ", E);
  }
}

void route_forward(const Context& ctx, const RouteForward& a) {
  const int64_t N = a.logits.dim(0), E = a.logits.dim(1), k = a.weights.dim(1);
  check_shape(a.logits, "logits", {N, E}, a.logits.dtype, ctx.device);
  check_shape(a.bias, "bias", {E}, a.logits);
  check_shape(a.scores, "scores", {N, E}, a.logits);
  check_shape(a.weights, "weights", {N, k}, a.logits);
  check_shape(a.experts, "experts", {N, k}, DType::i32, ctx.device);
  SLUICE_CHECK(k >= 1 && k <= E, k, " choices of ", E, " experts");
  if (a.given) {
    check_experts(ctx, a.given, N, E, "given");
    check_shape(a.given, "given", {N, k}, DType::i32, ctx.device);
  }
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(route_forward, ctx, a);
}

void route_backward(const Context& ctx, const RouteBackward& a) {
  const int64_t N = a.scores.dim(0), E = a.scores.dim(1);
  check_shape(a.scores, "scores", {N, E}, a.scores.dtype, ctx.device);
  check_experts(ctx, a.experts, N, E);
  check_shape(a.dweights, "dweights", {N, a.experts.dim(1)}, a.scores);
  const DType d = a.dlogits.t.dtype;
  check_shape(a.dlogits.t, "dlogits", {N, E}, sum_type(d) == a.scores.dtype ? d : a.scores.dtype,
              ctx.device);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(route_backward, ctx, a);
}

}  // namespace sluice
