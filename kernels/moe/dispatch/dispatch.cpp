// kernels/moe/dispatch/dispatch.cpp -- the contract, checked once for every back end.
#include "kernels/moe/dispatch/dispatch.h"

#include <limits>

#include "kernels/moe/dispatch/sizes.h"
#include "kernels/moe/route/route.h"

namespace sluice {

namespace cuda {
void dispatch_plan(const Context& ctx, const DispatchPlan& a, const Tensor& parts);
void dispatch_forward(const Context& ctx, const DispatchForward& a);
void dispatch_backward(const Context& ctx, const DispatchBackward& a);
void combine_forward(const Context& ctx, const CombineForward& a);
void combine_backward(const Context& ctx, const CombineBackward& a);
}  // namespace cuda
namespace cpu {
void dispatch_plan(const Context& ctx, const DispatchPlan& a, const Tensor&);
void dispatch_forward(const Context& ctx, const DispatchForward& a);
void dispatch_backward(const Context& ctx, const DispatchBackward& a);
void combine_forward(const Context& ctx, const CombineForward& a);
void combine_backward(const Context& ctx, const CombineBackward& a);
}  // namespace cpu
namespace reference {
void dispatch_plan(const Context& ctx, const DispatchPlan& a, const Tensor&);
void dispatch_forward(const Context& ctx, const DispatchForward& a);
void dispatch_backward(const Context& ctx, const DispatchBackward& a);
void combine_forward(const Context& ctx, const CombineForward& a);
void combine_backward(const Context& ctx, const CombineBackward& a);
}  // namespace reference

void dispatch_plan(const Context& ctx, const DispatchPlan& a) {
  const int64_t N = a.experts.dim(0), E = a.offsets.dim(0) - 1;
  check_experts(ctx, a.experts, N, E);
  const int64_t k = a.experts.dim(1);
  check_shape(a.place, "place", {N, k}, DType::i32, ctx.device);
  check_shape(a.offsets, "offsets", {E + 1}, DType::i32, ctx.device);
  if (a.counts) check_shape(a.counts, "counts", {E}, DType::i64, ctx.device);
  SLUICE_CHECK(N * k <= std::numeric_limits<int32_t>::max(), N * k, " routed rows");
  ArenaTensor parts;
  if (ctx.device == Device::cuda)
    parts = scratch(ctx, DType::i32, {(N * k + kDispatchPart - 1) / kDispatchPart, E});
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(dispatch_plan, ctx, a, parts.view());
}

// Of the rest: place is [N, k], routed rows are N k. Returns {N, D, k}.
static std::array<int64_t, 3> check_rows(const Context& ctx, const Tensor& tokens,
                                         const char* tokens_label, const Tensor& routed,
                                         const char* routed_label, const Tensor& place) {
  const int64_t N = tokens.dim(0), D = tokens.dim(1), k = place.dim(1);
  check_shape(tokens, tokens_label, {N, D}, tokens.dtype, ctx.device);
  check_shape(place, "place", {N, k}, DType::i32, ctx.device);
  check_shape(routed, routed_label, {N * k, D}, tokens);
  return {N, D, k};
}

void dispatch_forward(const Context& ctx, const DispatchForward& a) {
  check_rows(ctx, a.x, "x", a.xs, "xs", a.place);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(dispatch_forward, ctx, a);
}

void dispatch_backward(const Context& ctx, const DispatchBackward& a) {
  check_rows(ctx, a.dx.t, "dx", a.dxs, "dxs", a.place);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(dispatch_backward, ctx, a);
}

void combine_forward(const Context& ctx, const CombineForward& a) {
  const auto [N, D, k] = check_rows(ctx, a.y, "y", a.ys, "ys", a.place);
  check_shape(a.weights, "weights", {N, k}, sum_type(a.y.dtype), ctx.device);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(combine_forward, ctx, a);
}

void combine_backward(const Context& ctx, const CombineBackward& a) {
  const auto [N, D, k] = check_rows(ctx, a.dy, "dy", a.ys, "ys", a.place);
  check_shape(a.weights, "weights", {N, k}, sum_type(a.dy.dtype), ctx.device);
  check_shape(a.dys.t, "dys", {N * k, D}, a.dy);
  check_shape(a.dweights.t, "dweights", {N, k}, sum_type(a.dy.dtype), ctx.device);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(combine_backward, ctx, a);
}

}  // namespace sluice
