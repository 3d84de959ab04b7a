// kernels/gdn/bench.cpp -- time of the chunked back end: sluice bench op gdn.
#include "kernels/bench/recurrence_cpu.h"
#include "kernels/gdn/gdn_op.h"

static const bool registered = sluice::bench::register_recurrence<sluice::GdnOp>("gdn");

BENCHMARK_MAIN();
