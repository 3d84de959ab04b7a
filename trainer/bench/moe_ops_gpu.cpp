// trainer/bench/moe_ops_gpu.cpp -- rows of bench_ops_gpu for a mixture of experts.
#include "kernels/linear/linear.h"
#include "kernels/moe/dispatch/dispatch.h"
#include "kernels/moe/grouped_linear/grouped_linear.h"
#include "kernels/moe/route/route.h"
#include "trainer/bench/ops_gpu.h"

namespace sluice {
namespace {

// Loads as of a trained router: expert e has a share of 1 + e % 3.
Buffer unequal_offsets(int64_t R, int64_t E) {
  int64_t shares = 0, sum = 0;
  for (int64_t e = 0; e < E; ++e) shares += 1 + e % 3;
  std::vector<int32_t> offsets{0};
  for (int64_t e = 0; e < E; ++e) offsets.push_back(int32_t((sum += 1 + e % 3) * R / shares));
  return integers(offsets);
}

// A grouped product beside a dense one of as many operations.
void grouped_products(const Bench& b, int64_t R, int64_t E, int64_t D, int64_t F) {
  const Buffer x = noise(kT, {R, D}), w = noise(kT, {E, F, D}), y = noise(kT, {R, F});
  const Buffer dx = empty(kT, {R, D}), dw = empty(kS, {E, F, D}), offsets = unequal_offsets(R, E);
  const double product = 2 * double(R) * double(D) * double(F);
  std::printf("%lld routed rows, %lld experts, %lld -> %lld\n", static_cast<long long>(R),
              static_cast<long long>(E), static_cast<long long>(D), static_cast<long long>(F));
  b.row("grouped_linear forward", 0, product, [&] {
    grouped_linear_forward(
        b.ctx, {.x = x.view(), .w = w.view(), .offsets = offsets.view(), .y = y.view()});
  });
  b.row("grouped_linear backward, dw added", 0, 2 * product, [&] {
    grouped_linear_backward(b.ctx, {.x = x.view(),
                                    .w = w.view(),
                                    .offsets = offsets.view(),
                                    .dy = y.view(),
                                    .dx = {dx.view()},
                                    .dw = {dw.view(), true}});
  });
  const Tensor one = w.view().rows(0, 1).reshape({F, D});
  b.row("one dense product: linear forward", 0, product,
        [&] { linear_forward(b.ctx, {.x = x.view(), .w = one, .y = y.view()}); });
  b.row("one dense product: linear backward", 0, 2 * product, [&] {
    linear_backward(b.ctx, {.x = x.view(),
                            .w = one,
                            .dy = y.view(),
                            .dx = {dx.view()},
                            .dw = {dw.view().rows(0, 1).reshape({F, D}), true}});
  });
}

// What is around the experts' products.
void routing(const Bench& b, int64_t N, int64_t D, int64_t E, int64_t k) {
  std::printf("%lld tokens of width %lld to %lld of %lld experts\n", static_cast<long long>(N),
              static_cast<long long>(D), static_cast<long long>(k), static_cast<long long>(E));
  const Buffer logits = noise(kS, {N, E}), bias = noise(kS, {E}), scores = empty(kS, {N, E});
  const Buffer weights = noise(kS, {N, k}), dweights = noise(kS, {N, k}),
               dlogits = empty(kT, {N, E});
  const Buffer experts(DType::i32, {N, k}, Device::cuda), place(DType::i32, {N, k}, Device::cuda),
      offsets(DType::i32, {E + 1}, Device::cuda);
  b.row("route forward", double(N * (2 * E + 2 * k)) * 4, 0, [&] {
    route_forward(b.ctx, {.logits = logits.view(),
                          .bias = bias.view(),
                          .given = {},
                          .scores = scores.view(),
                          .experts = experts.view(),
                          .weights = weights.view(),
                          .params = {}});
  });
  b.row("route backward", double(N * (2 * E + 12 * k)), 0, [&] {
    route_backward(b.ctx, {.scores = scores.view(),
                           .experts = experts.view(),
                           .dweights = dweights.view(),
                           .dlogits = {dlogits.view()},
                           .params = {}});
  });
  b.row("dispatch_plan", double(N * k) * 8, 0, [&] {
    dispatch_plan(b.ctx, {.experts = experts.view(),
                          .place = place.view(),
                          .offsets = offsets.view(),
                          .counts = {}});
  });
  const Buffer x = noise(kT, {N, D}), xs = noise(kT, {N * k, D}), dxs = empty(kT, {N * k, D});
  const double row = 2 * double(D), rows = double(N) * row;
  b.row("dispatch forward", double(1 + k) * rows, 0,
        [&] { dispatch_forward(b.ctx, {.x = x.view(), .place = place.view(), .xs = xs.view()}); });
  b.row("dispatch backward", double(1 + k) * rows, 0, [&] {
    dispatch_backward(b.ctx, {.dxs = xs.view(), .place = place.view(), .dx = {x.view()}});
  });
  b.row("combine forward", double(1 + k) * rows, 0, [&] {
    combine_forward(
        b.ctx, {.ys = xs.view(), .weights = weights.view(), .place = place.view(), .y = x.view()});
  });
  b.row("combine backward", double(1 + 2 * k) * rows, 0, [&] {
    combine_backward(b.ctx, {.ys = xs.view(),
                             .weights = weights.view(),
                             .place = place.view(),
                             .dy = x.view(),
                             .dys = {dxs.view()},
                             .dweights = {dweights.view()}});
  });
}

}  // namespace

void moe_ops(const Bench& b, int64_t N, int64_t D) {
  routing(b, N, D, 64, 8);
  for (const auto& [d, f] : {std::pair<int64_t, int64_t>{1024, 1024}, {512, 1024}, {2048, 2048}})
    grouped_products(b, 8 * N, 64, d, f);
}

}  // namespace sluice
