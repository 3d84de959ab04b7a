// kernels/gdn/bench_gpu.cpp -- time of the CUDA back end, beside what a copy moves in the same run:
// the program bench_gdn_gpu.
#include "kernels/bench/recurrence_gpu.h"
#include "kernels/gdn/gdn_op.h"

int main() {
  using namespace sluice;
  constexpr double D = bench::kGpuDim;
  bench::time_recurrence_shapes<GdnOp>({{"delta rule, random", {.delta_rule = true}, 0},
                                        {"delta rule, slow", {.delta_rule = true}, -4},
                                        {"mamba2, random", {.delta_rule = false}, 0}},
                                       {.forward = 4 * 2 * D + 4, .backward = 7 * 2 * D + 8});
}
