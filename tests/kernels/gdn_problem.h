// tests/kernels/gdn_problem.h -- one GDN problem with everything around it.
#pragma once

#include "kernels/gdn/gdn_op.h"
#include "tests/kernels/recurrence_problem.h"

namespace sluice::test {

using GdnShape = RecurrenceShape<GdnOp>;
using GdnProblem = RecurrenceProblem<GdnOp>;

}  // namespace sluice::test
