// kernels/bench/recurrence_gpu.h -- rows of the programs that time a chunked recurrence on a GPU.
//
// Tokens are bf16, K = V = 128. A row: documents x tokens and heads, gate, ms of a forward that
// keeps nothing, of one that keeps what backward needs, and of backward.
#pragma once

#include <cstdio>

#include "kernels/bench/gpu.h"
#include "kernels/bench/recurrence.h"

namespace sluice::bench {

constexpr int64_t kGpuDim = 128;

template <class Op>
struct GateKind {
  const char* name;
  typename Op::Params params;
  float dt_bias;  // 0: random gates; -4: slow ones
};

struct RecurrenceFloor {
  double forward, backward;  // least bytes a token and head
};

template <class Op>
void time_recurrence(const RecurrenceShape& s, const std::vector<GateKind<Op>>& gates,
                     const RecurrenceFloor& floor, double rate) {
  std::vector<int32_t> cu;
  for (int64_t d = 0; d <= s.documents; ++d) cu.push_back(int32_t(d * s.tokens));
  Arena arena(Device::cuda, int64_t(2) << 30);
  const Context ctx{.device = Device::cuda, .arena = &arena};
  for (const GateKind<Op>& gate : gates) {
    const Recurrence<Op> r(
        s, [](auto shape, uint64_t seed) { return noise(DType::bf16, shape, seed); },
        [](auto shape, float value) { return constant(shape, value); }, 0, gate.dt_bias,
        integers(cu));
    typename Op::Forward f = r.forward(gate.params);
    const double infer = median_ms(ctx.stream, [&] { Op::forward(ctx, f); });
    const Buffer saved = empty(DType::u8, {Op::saved_bytes(ctx, f)});
    f.saved = saved.view();
    const double forward = median_ms(ctx.stream, [&] { Op::forward(ctx, f); });
    const auto b = r.backward(f);
    const double backward = median_ms(ctx.stream, [&] { Op::backward(ctx, b); });
    const double units = double(s.N() * s.heads);
    std::printf("%2ld x %-5ld H %-3ld %-18s %8.3f %8.3f %8.3f   floor %.3f %.3f\n",
                long(s.documents), long(s.tokens), long(s.heads), gate.name, infer, forward,
                backward, units * floor.forward / rate, units * floor.backward / rate);
  }
}

template <class Op>
void time_recurrence_shapes(const std::vector<GateKind<Op>>& gates, const RecurrenceFloor& floor) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const double rate = copy_rate(nullptr);
  std::printf("copy %.2f TB/s, read and written\n", rate * 1e-9);
  std::printf("documents, heads, gate              infer  forward backward   ms\n");
  time_recurrence<Op>({1, 8192, 32, kGpuDim}, gates, floor, rate);
  time_recurrence<Op>({1, 8192, 64, kGpuDim}, gates, floor, rate);
  time_recurrence<Op>({4, 4096, 16, kGpuDim}, gates, floor, rate);
}

}  // namespace sluice::bench
