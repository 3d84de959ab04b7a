// trainer/bench/update_gpu.cpp -- time of what follows a backward pass on CUDA, beside the rate of
// a copy and of a product in the same run: the program bench_update_gpu.
//
// The shards are those of a dense model of 24 layers and width 2048: 1.2G elements, far past the
// L2. `share` is the time that a copy needs for the bytes that must move, over the time.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "kernels/cast/cast.h"
#include "kernels/device/pinned.h"
#include "kernels/grad_norm/grad_norm.h"
#include "kernels/muon/muon.h"
#include "trainer/bench/ops_gpu.h"
#include "trainer/loop/device.h"
#include "trainer/loop/measure.h"

namespace sluice {
namespace {

std::vector<int64_t> shard_sizes() {
  std::vector<int64_t> sizes{32768 * 2048};
  for (int layer = 0; layer < 24; ++layer)
    for (const int64_t n : {6144 * 2048, 2048 * 2048, 6144 * 4, 272 * 2048, 2048 * 128, 2048 * 128,
                            11008 * 2048, 5504 * 2048, 2048, 2048, 128, 16, 2048})
      sizes.push_back(n);
  return sizes;
}

void one_by_one(const Bench& b, int64_t n, const StepState* state) {
  const Buffer p(DType::f32, {n}, Device::cuda), g(p.view()), m(p.view()), v(p.view());
  const AdamW one{
      .param = p.view(), .grad = g.view(), .m = m.view(), .v = v.view(), .state = state};
  b.row("adamw, one shard, 67M", 28 * double(n), 0, [&] { adamw(b.ctx, one); });
}

void all_shards(const Bench& b, const StepState* state) {
  int64_t total = 0;
  const std::vector<int64_t> sizes = shard_sizes();
  for (const int64_t n : sizes) total += (n + 127) / 128 * 128;
  const Buffer p(DType::f32, {total}, Device::cuda), g(p.view()), m(p.view()), v(p.view()),
      c(DType::bf16, {total}, Device::cuda), sum(DType::f64, {1}, Device::cuda);
  std::vector<AdamW> list;
  std::vector<Tensor> grads;
  int64_t at = 0;
  for (const int64_t n : sizes) {
    const auto part = [&](const Buffer& buffer) { return buffer.view().rows(at, n); };
    list.push_back({.param = part(p),
                    .grad = part(g),
                    .m = part(m),
                    .v = part(v),
                    .copy = part(c),
                    .state = state});
    grads.push_back(part(g));
    at += (n + 127) / 128 * 128;
  }
  const double n = double(total);
  std::printf("%.0fM elements, %zu shards\n", n / 1e6, list.size());
  b.row("adamw and the bf16 copy", 30 * n, 0, [&] { adamw(b.ctx, list); });
  for (AdamW& a : list) a.copy = {};
  b.row("adamw", 28 * n, 0, [&] { adamw(b.ctx, list); });
  b.row("the copy alone", 6 * n, 0, [&] { cast(b.ctx, {.from = p.view(), .to = c.view()}); });
  b.row("grad_norm", 4 * n, 0,
        [&] { grad_norm(b.ctx, {.grads = grads, .sum_of_squares = sum.view()}); });
}

// 67M elements whose states are of this type and lie in this memory; and how long copies of as many
// bytes take, in and out at the same time by two streams.
void states(const Bench& b, DType type, bool on_host, const StepState* state) {
  const int64_t n = int64_t(1) << 26, bytes = n * size_of(type);
  const Buffer p(DType::f32, {n}, Device::cuda), g(p.view()), c(DType::bf16, {n}, Device::cuda),
      here(type, {2 * n}, Device::cuda);
  const PinnedBuffer there(Device::cuda, on_host ? 2 * bytes : 1);
  const auto part = [&](int64_t i) {
    void* const at = on_host ? there.view().data : here.view().data;
    return make_tensor(static_cast<char*>(at) + i * bytes, type, Device::cuda, {n});
  };
  const AdamW a{.param = p.view(),
                .grad = g.view(),
                .m = part(0),
                .v = part(1),
                .copy = c.view(),
                .state = state,
                .rounding = {.key = 1, .begin = 0}};
  const double moved = double(n) * (14 + 4 * double(size_of(type)));
  const std::string what =
      std::string("adamw, 67M, states ") + name(type) + (on_host ? " on the host" : "");
  b.row(what.c_str(), moved, 0, [&] { adamw(b.ctx, a); });
  if (!on_host) return;
  const Stream other;
  const double ms = bench::median_ms(b.ctx.stream, [&] {
    SLUICE_CUDA(cudaMemcpyAsync(here.view().data, there.view().data, size_t(2 * bytes),
                                cudaMemcpyDefault, b.ctx.stream));
    SLUICE_CUDA(cudaMemcpyAsync(there.view().data, here.view().data, size_t(2 * bytes),
                                cudaMemcpyDefault, other.get()));
    SLUICE_CUDA(cudaStreamSynchronize(other.get()));
  });
  std::printf("  copies of these states in and out at once %15.3f ms, %.1f GB/s each way\n", ms,
              2 * double(bytes) / ms / 1e6);
}

// Five iterations, each a Gram matrix (2 s^2 l), its square (2 s^3) and a product with X (2 s^2 l);
// the share is of the rate of a product of 8192^3.
void matrices(const Bench& b, double gemm_rate, int64_t B, int64_t m, int64_t n,
              const StepState* state) {
  const Buffer p(DType::f32, {B, m, n}, Device::cuda),
      g = noise(DType::f32, {B, m, n}), M(p.view()), c(DType::bf16, {B, m, n}, Device::cuda);
  const Muon a{
      .param = p.view(), .grad = g.view(), .m = M.view(), .copy = c.view(), .state = state};
  const double ms = bench::median_ms(b.ctx.stream, [&] { muon(b.ctx, a); });
  const double s = double(std::min(m, n)), l = double(std::max(m, n));
  const double flops = double(B) * 5 * (4 * s * s * l + 2 * s * s * s);
  std::printf("muon, %3lld of %5lld x %5lld %21.3f ms %6.0f TFLOP/s %4.0f %%\n",
              static_cast<long long>(B), static_cast<long long>(m), static_cast<long long>(n), ms,
              flops / ms / 1e9, 100 * flops / ms * 1e3 / gemm_rate);
}

void run() {
  Context ctx;
  const DeviceHandles handles(Device::cuda, ctx);
  Arena arena(Device::cuda, int64_t(1) << 30);
  ctx.arena = &arena;
  const double gemm_rate = measure_gemm_rate(ctx, 1);
  const Bench b{ctx, bench::copy_rate(ctx.stream), gemm_rate / 1e3};
  std::printf("%s: copy %.0f GB/s\n", gpu_name(), b.copy_rate / 1e6);
  StepState host{.step = 1, .lr = 1e-3F};
  DeviceState on_device(Device::cuda);
  const StepState* state = on_device.put(host);
  one_by_one(b, 32768 * 2048, state);
  all_shards(b, state);
  for (const bool on_host : {false, true})
    for (const DType type : {DType::f32, DType::bf16}) states(b, type, on_host, state);
  std::printf("product of 8192^3: %.0f TFLOP/s\n", gemm_rate / 1e12);
  for (const auto& [B, m, n] : std::initializer_list<std::array<int64_t, 3>>{{1, 2048, 2048},
                                                                             {3, 2048, 2048},
                                                                             {24, 2048, 2048},
                                                                             {1, 5632, 2048},
                                                                             {64, 1024, 2048},
                                                                             {64, 512, 1024},
                                                                             {1, 256, 2048}})
    matrices(b, gemm_rate, B, m, n, state);
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
