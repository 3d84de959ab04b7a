// tests/kernels/gdn_gpu_problem.h -- a GDN problem on the GPU.
#pragma once

#include "tests/kernels/gdn_problem.h"
#include "tests/kernels/recurrence_gpu_problem.h"

namespace sluice::test {

using GdnOnGpu = RecurrenceOnGpu<GdnOp>;

}  // namespace sluice::test
