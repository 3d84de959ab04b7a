// trainer/bench/ops_gpu.cpp -- time of the CUDA ops of a model, beside what a copy moves and a
// product of 8192^3 reaches in the same run: the program bench_ops_gpu.
#include "trainer/bench/ops_gpu.h"

#include "kernels/adamw/adamw.h"
#include "kernels/add/add.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "kernels/linear/linear.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/mla/mla.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/short_conv/short_conv.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/tensor/rng.h"
#include "trainer/loop/device.h"
#include "trainer/loop/measure.h"

namespace sluice {
namespace {

void token_ops(const Bench& b, int64_t N, int64_t D) {
  const double n = double(N) * double(D) * 2;  // bytes of [N, D]
  const Context& ctx = b.ctx;
  const Buffer x = noise(kT, {N, D}), y = noise(kT, {N, D}), z = noise(kT, {N, D});
  const Buffer w = noise(kS, {D}), dw = empty(kS, {D}), rstd = noise(kS, {N});
  b.row("add forward", 3 * n, 0,
        [&] { add_forward(ctx, {.a = x.view(), .b = y.view(), .y = z.view()}); });
  b.row("rmsnorm forward", 2 * n, 0, [&] {
    rmsnorm_forward(
        ctx, {.x = x.view(), .w = w.view(), .y = z.view(), .rstd = rstd.view(), .eps = 1e-5});
  });
  b.row("rmsnorm backward", 3 * n, 0, [&] {
    rmsnorm_backward(ctx, {.x = x.view(),
                           .w = w.view(),
                           .rstd = rstd.view(),
                           .dy = y.view(),
                           .dx = {z.view()},
                           .dw = {dw.view()}});
  });
  const int64_t C = 128, H = D / C;
  const auto heads = [&](const Buffer& t) { return t.view().reshape({N, H, C}); };
  const Buffer gate = noise(kT, {N, D}), dgate = empty(kT, {N, D}), wc = noise(kS, {C}),
               dwc = empty(kS, {C}), rstd_h = noise(kS, {N, H});
  b.row("gated_rmsnorm forward, heads of 128", 3 * n, 0, [&] {
    gated_rmsnorm_forward(ctx, {.x = heads(x),
                                .gate = heads(gate),
                                .w = wc.view(),
                                .y = heads(z),
                                .rstd = rstd_h.view(),
                                .eps = 1e-5});
  });
  b.row("gated_rmsnorm backward", 5 * n, 0, [&] {
    gated_rmsnorm_backward(ctx, {.x = heads(x),
                                 .gate = heads(gate),
                                 .w = wc.view(),
                                 .rstd = rstd_h.view(),
                                 .dy = heads(y),
                                 .dx = {heads(z)},
                                 .dgate = {heads(dgate)},
                                 .dw = {dwc.view()}});
  });
  const Buffer wide = noise(kT, {N, 2 * D}), dwide = empty(kT, {N, 2 * D});
  b.row("swiglu forward", 3 * n, 0,
        [&] { swiglu_forward(ctx, {.gate_up = wide.view(), .y = z.view()}); });
  b.row("swiglu backward", 5 * n, 0, [&] {
    swiglu_backward(ctx, {.gate_up = wide.view(), .dy = y.view(), .dgate_up = {dwide.view()}});
  });
  const Buffer taps = noise(kT, {D, 4}), dtaps = empty(kS, {D, 4}),
               cu = integers({0, int32_t(N / 2), int32_t(N)});
  b.row("short_conv forward, 4 taps", 2 * n, 0, [&] {
    short_conv_forward(ctx, {.x = x.view(),
                             .w = taps.view(),
                             .cu_seqlens = cu.view(),
                             .initial_state = {},
                             .y = z.view(),
                             .final_state = {}});
  });
  b.row("short_conv backward", 3 * n, 0, [&] {
    short_conv_backward(ctx, {.x = x.view(),
                              .w = taps.view(),
                              .cu_seqlens = cu.view(),
                              .initial_state = {},
                              .dy = y.view(),
                              .dfinal_state = {},
                              .dx = {z.view()},
                              .dw = {dtaps.view()},
                              .dinitial_state = {}});
  });
}

void vocabulary_ops(const Bench& b, int64_t N, int64_t D, int64_t V) {
  const Context& ctx = b.ctx;
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < N; ++n)  // skewed, as words are
    ids.push_back(int32_t(random_uniform(1, uint64_t(n)) * random_uniform(2, uint64_t(n)) *
                          random_uniform(3, uint64_t(n)) * double(V)));
  const Buffer tokens = integers(ids), table = noise(kT, {V, D}), dtable = empty(kS, {V, D});
  const Buffer x = noise(kT, {N, D}), dx = empty(kT, {N, D});
  const double rows = double(N * D) * 2, all = double(V * D);
  b.row("embedding forward", 2 * rows, 0, [&] {
    embedding_forward(ctx, {.tokens = tokens.view(), .table = table.view(), .y = dx.view()});
  });
  b.row("embedding backward, written", rows + 4 * all, 0, [&] {
    embedding_backward(ctx, {.tokens = tokens.view(), .dy = x.view(), .dtable = {dtable.view()}});
  });
  const Buffer lse = empty(kS, {N}), nll = empty(kS, {N}), one(DType::f64, {1}, Device::cuda),
               loss(DType::f64, {1}, Device::cuda);
  const double product = 2 * double(N) * all;
  b.row("linear_cross_entropy forward", 0, product, [&] {
    linear_cross_entropy_forward(ctx, {.h = x.view(),
                                       .w = table.view(),
                                       .targets = tokens.view(),
                                       .loss_scale = one.view(),
                                       .loss = loss.view(),
                                       .terms = {},
                                       .lse = lse.view(),
                                       .nll = nll.view()});
  });
  b.row("linear_cross_entropy backward", 0, 3 * product, [&] {
    linear_cross_entropy_backward(ctx, {.h = x.view(),
                                        .w = table.view(),
                                        .targets = tokens.view(),
                                        .loss_scale = one.view(),
                                        .lse = lse.view(),
                                        .dloss = one.view(),
                                        .dh = {dx.view()},
                                        .dw = {dtable.view()}});
  });
  const int64_t n = V * D;
  const auto flat = [n](const Buffer& t) { return t.view().reshape({n}); };
  const Buffer p = noise(kS, {V, D}), m = empty(kS, {V, D}), v = empty(kS, {V, D});
  StepState state{.step = 1, .lr = 1e-3F};
  DeviceState on_device(Device::cuda);
  AdamW update{.param = flat(p),
               .grad = flat(dtable),
               .m = flat(m),
               .v = flat(v),
               .state = on_device.put(state)};
  b.row("adamw", 28 * double(n), 0, [&] { adamw(ctx, update); });
}

void products(const Bench& b, int64_t N, int64_t D, int64_t F) {
  const Buffer x = noise(kT, {N, D}), w = noise(kT, {F, D}), y = noise(kT, {N, F});
  const Buffer dx = empty(kT, {N, D}), dw = empty(kS, {F, D});
  const double product = 2 * double(N) * double(D) * double(F);
  char name[64];
  std::snprintf(name, sizeof name, "linear forward, %lld -> %lld", static_cast<long long>(D),
                static_cast<long long>(F));
  b.row(name, 0, product,
        [&] { linear_forward(b.ctx, {.x = x.view(), .w = w.view(), .y = y.view()}); });
  b.row("linear backward, dx written, dw added", 0, 2 * product, [&] {
    linear_backward(
        b.ctx,
        {.x = x.view(), .w = w.view(), .dy = y.view(), .dx = {dx.view()}, .dw = {dw.view(), true}});
  });
}

void attention(const Bench& b, int64_t N, int64_t H) {
  const int64_t nope = 128, rope = 64, V = 128;
  const Buffer q = noise(kT, {N, H, nope + rope}), kv = noise(kT, {N, H, nope + V}),
               kr = noise(kT, {N, rope}), o = noise(kT, {N, H, V}), d_o = noise(kT, {N, H, V});
  const Buffer dq(q.view()), dkv(kv.view()), dkr(kr.view()), lse = empty(kS, {N, H}),
                                                             cu = integers({0, int32_t(N)});
  // Half of the pairs are masked; two products forward, five backward.
  const double pairs = double(N) * double(N) / 2 * double(H) * 2;
  b.row("mla forward, 192/128, one document", 0, pairs * double(nope + rope + V), [&] {
    mla_forward(b.ctx, {.q = q.view(),
                        .kv = kv.view(),
                        .k_rope = kr.view(),
                        .cu_seqlens_q = cu.view(),
                        .cu_seqlens_k = cu.view(),
                        .o = o.view(),
                        .lse = lse.view()});
  });
  for (bool fast : {false, true}) {
    Context ctx = b.ctx;
    ctx.determinism = fast ? Determinism::fast : Determinism::strict;
    b.row(fast ? "mla backward, fast" : "mla backward, strict", 0,
          pairs * double(3 * (nope + rope) + 2 * V), [&] {
            mla_backward(ctx, {.q = q.view(),
                               .kv = kv.view(),
                               .k_rope = kr.view(),
                               .cu_seqlens_q = cu.view(),
                               .cu_seqlens_k = cu.view(),
                               .o = o.view(),
                               .lse = lse.view(),
                               .d_o = d_o.view(),
                               .dq = {dq.view()},
                               .dkv = {dkv.view()},
                               .dk_rope = {dkr.view()}});
          });
  }
}

void run() {
  Context ctx;
  const DeviceHandles handles(Device::cuda, ctx);
  Arena arena(Device::cuda, int64_t(4) << 30);
  ctx.arena = &arena;
  const Bench b{ctx, bench::copy_rate(ctx.stream), measure_gemm_rate(ctx, 1) / 1e3};
  std::printf("%s: copy %.0f GB/s, product of 8192^3 %.0f TFLOP/s\n", gpu_name(), b.copy_rate / 1e6,
              b.gemm_rate / 1e9);
  const int64_t N = 16384, D = 2048;
  std::printf("%lld tokens, width %lld\n", static_cast<long long>(N), static_cast<long long>(D));
  token_ops(b, N, D);
  products(b, N, D, 3 * D);
  products(b, N, 5504, D);
  vocabulary_ops(b, N, D, 32768);
  attention(b, 8192, 16);
  moe_ops(b, N, D);
}

}  // namespace
}  // namespace sluice

int main() {
  try {
    sluice::run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
