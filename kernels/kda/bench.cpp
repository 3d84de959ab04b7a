// kernels/kda/bench.cpp -- time of the chunked back end: sluice bench op kda.
#include "kernels/bench/recurrence_cpu.h"
#include "kernels/kda/kda_op.h"

static const bool registered = sluice::bench::register_recurrence<sluice::KdaOp>("kda");

BENCHMARK_MAIN();
