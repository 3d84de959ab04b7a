// tests/kernels/kda_problem.h -- one KDA problem with everything around it.
#pragma once

#include "kernels/kda/kda_op.h"
#include "tests/kernels/recurrence_problem.h"

namespace sluice::test {

using KdaShape = RecurrenceShape<KdaOp>;
using KdaProblem = RecurrenceProblem<KdaOp>;

}  // namespace sluice::test
