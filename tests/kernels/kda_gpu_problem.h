// tests/kernels/kda_gpu_problem.h -- a KDA problem on the GPU.
#pragma once

#include "tests/kernels/kda_problem.h"
#include "tests/kernels/recurrence_gpu_problem.h"

namespace sluice::test {

using KdaOnGpu = RecurrenceOnGpu<KdaOp>;

}  // namespace sluice::test
