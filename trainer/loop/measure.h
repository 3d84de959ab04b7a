// trainer/loop/measure.h -- time, and what the machine can do.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

// Seconds of a clock that nobody sets: rates and remaining times survive a jump of the wall clock.
double monotonic_seconds();

// FLOP/s of a plain product, f32 on all `threads` of the CPU or bf16 on the GPU: what MFU is
// measured against.
double measure_gemm_rate(const Context& ctx, int threads);

// Bytes a second that a copy within the GPU's memory reads and writes.
double measure_copy_rate(const Context& ctx);

}  // namespace sluice
