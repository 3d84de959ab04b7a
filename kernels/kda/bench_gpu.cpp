// kernels/kda/bench_gpu.cpp -- time of the CUDA back end, beside what a copy moves in the same run.
//
// Tokens are bf16, K = V = 128. A row: documents x tokens and heads, gate, ms of a forward that
// keeps nothing, of one that keeps what backward needs, and of backward: medians of 30. `floor` is
// the least bytes of each (every input read once, every output written once) over the copy's rate.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "kernels/base/cuda_check.h"
#include "kernels/kda/kda.h"

namespace sluice {
namespace {

constexpr int64_t kDim = 128;

float median_ms(const std::function<void()>& body) {
  constexpr int kWarm = 3, kRuns = 30;
  cudaEvent_t begin, end;
  SLUICE_CUDA(cudaEventCreate(&begin));
  SLUICE_CUDA(cudaEventCreate(&end));
  std::vector<float> ms;
  for (int i = 0; i < kWarm + kRuns; ++i) {
    SLUICE_CUDA(cudaEventRecord(begin));
    body();
    SLUICE_CUDA(cudaEventRecord(end));
    SLUICE_CUDA(cudaEventSynchronize(end));
    float t = 0;
    SLUICE_CUDA(cudaEventElapsedTime(&t, begin, end));
    if (i >= kWarm) ms.push_back(t);
  }
  SLUICE_CUDA(cudaEventDestroy(begin));
  SLUICE_CUDA(cudaEventDestroy(end));
  std::nth_element(ms.begin(), ms.begin() + kRuns / 2, ms.end());
  return ms[kRuns / 2];
}

// Bytes read and written a millisecond.
double copy_rate() {
  const int64_t bytes = int64_t(1) << 30;
  const Buffer from(DType::u8, {bytes}, Device::cuda), to(DType::u8, {bytes}, Device::cuda);
  const float ms = median_ms([&] {
    SLUICE_CUDA(cudaMemcpyAsync(to.view().data, from.view().data, size_t(bytes),
                                cudaMemcpyDeviceToDevice, nullptr));
  });
  return 2 * double(bytes) / ms;
}

// About N(0, 1) from the sum of four random bytes; bf16 by cutting the rest off. Repeats after
// kPeriod elements, a prime.
Buffer noise(std::initializer_list<int64_t> shape, uint64_t seed) {
  const Buffer host(DType::bf16, shape);
  auto* to = static_cast<uint16_t*>(host.view().data);
  constexpr int64_t kPeriod = 1299709;
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
  for (int64_t i = 0; i < host.view().numel(); ++i) {
    if (i >= kPeriod) {
      to[i] = to[i - kPeriod];
      continue;
    }
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    const int sum = int(x >> 56) + int(x >> 48 & 255) + int(x >> 40 & 255) + int(x >> 32 & 255);
    const float value = float(sum - 510) / 148;
    uint32_t bits;
    std::copy_n(reinterpret_cast<const char*>(&value), 4, reinterpret_cast<char*>(&bits));
    to[i] = uint16_t(bits >> 16);
  }
  Buffer b(DType::bf16, shape, Device::cuda);
  copy(host.view(), b.view());
  return b;
}
Buffer constant(std::initializer_list<int64_t> shape, float value) {
  const Buffer host(DType::f32, shape);
  std::fill_n(host.view().as<float>(), host.view().numel(), value);
  Buffer b(DType::f32, shape, Device::cuda);
  copy(host.view(), b.view());
  return b;
}

struct Shape {
  int64_t documents, tokens, heads;
};
struct GateKind {
  const char* name;
  GateLaw law;
  float bias;
};

void measure(const Shape& s, const std::vector<GateKind>& gates, double rate) {
  const int64_t N = s.documents * s.tokens, H = s.heads, D = kDim;
  const Buffer q = noise({N, H, D}, 1), k = noise({N, H, D}, 2), v = noise({N, H, D}, 3),
               g = noise({N, H, D}, 4), d_o = noise({N, H, D}, 5), beta = noise({N, H}, 6);
  const Buffer A = constant({H}, 0);
  const Buffer host_cu(DType::i32, {s.documents + 1});
  for (int64_t d = 0; d <= s.documents; ++d)
    host_cu.view().as<int32_t>()[d] = int32_t(d * s.tokens);
  const Buffer cu(DType::i32, {s.documents + 1}, Device::cuda);
  copy(host_cu.view(), cu.view());
  const Buffer o(v.view()), dq(q.view()), dk(q.view()), dv(v.view()), dg(g.view()),
      dbeta(beta.view()), dA(A.view()), dbias = constant({H, D}, 0);
  Arena arena(Device::cuda, int64_t(2) << 30);
  const Context ctx{.device = Device::cuda, .arena = &arena};
  for (const GateKind& gate : gates) {
    const Buffer bias = constant({H, D}, gate.bias);
    KdaForward f{.q = q.view(),
                 .k = k.view(),
                 .v = v.view(),
                 .g = g.view(),
                 .beta = beta.view(),
                 .A_log = A.view(),
                 .dt_bias = bias.view(),
                 .cu_seqlens = cu.view(),
                 .initial_state = {},
                 .o = o.view(),
                 .final_state = {},
                 .saved = {},
                 .params = {.gate = gate.law}};
    const float infer = median_ms([&] { kda_forward(ctx, f); });
    const Buffer saved(DType::u8, {kda_saved_bytes(ctx, f)}, Device::cuda);
    f.saved = saved.view();
    const float forward = median_ms([&] { kda_forward(ctx, f); });
    const KdaBackward b{.q = f.q,
                        .k = f.k,
                        .v = f.v,
                        .g = f.g,
                        .beta = f.beta,
                        .A_log = f.A_log,
                        .dt_bias = f.dt_bias,
                        .cu_seqlens = f.cu_seqlens,
                        .initial_state = {},
                        .saved = saved.view(),
                        .d_o = d_o.view(),
                        .dfinal_state = {},
                        .dq = {dq.view()},
                        .dk = {dk.view()},
                        .dv = {dv.view()},
                        .dg = {dg.view()},
                        .dbeta = {dbeta.view()},
                        .dA_log = {dA.view()},
                        .ddt_bias = {dbias.view()},
                        .dinitial_state = {},
                        .params = f.params};
    const float backward = median_ms([&] { kda_backward(ctx, b); });
    const double units = double(N * H);
    std::printf("%2ld x %-5ld H %-3ld %-16s %8.3f %8.3f %8.3f   floor %.3f %.3f\n",
                long(s.documents), long(s.tokens), long(H), gate.name, infer, forward, backward,
                units * (5 * 2 * D + 2) / rate, units * (9 * 2 * D + 4) / rate);
  }
}

}  // namespace
}  // namespace sluice

int main() {
  using namespace sluice;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const double rate = copy_rate();
  std::printf("copy %.2f TB/s, read and written\n", rate * 1e-9);
  std::printf("documents, heads, gate            infer  forward backward   ms\n");
  for (const Shape& s : {Shape{1, 8192, 32}, Shape{1, 8192, 64}, Shape{4, 4096, 16}})
    measure(s,
            {{"bounded, random", GateLaw::bounded, 0},
             {"bounded, slow", GateLaw::bounded, -4},
             {"softplus, random", GateLaw::softplus, 0},
             {"softplus, slow", GateLaw::softplus, -4}},
            rate);
  return 0;
}
