// kernels/kda/bench_gpu.cpp -- time of the CUDA back end, beside what a copy moves in the same run:
// the program bench_kda_gpu.
#include "kernels/bench/recurrence_gpu.h"
#include "kernels/kda/kda_op.h"

int main() {
  using namespace sluice;
  constexpr double D = bench::kGpuDim;
  bench::time_recurrence_shapes<KdaOp>({{"bounded, random", {.gate = GateLaw::bounded}, 0},
                                        {"bounded, slow", {.gate = GateLaw::bounded}, -4},
                                        {"softplus, random", {.gate = GateLaw::softplus}, 0},
                                        {"softplus, slow", {.gate = GateLaw::softplus}, -4}},
                                       {.forward = 5 * 2 * D + 2, .backward = 9 * 2 * D + 4});
}
