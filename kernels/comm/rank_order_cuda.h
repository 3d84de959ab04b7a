// kernels/comm/rank_order_cuda.h -- reduce_ranks on a GPU.
#pragma once

#include "kernels/comm/rank_order.h"

struct CUstream_st;

namespace sluice::cuda {

// out[i] = the sum or maximum over p, in the order of the ranks, of x[p * count + i], i < count,
// p < ranks. The bits of reduce_ranks.
void reduce_ranks(RankReduce how, DType dtype, const void* x, int ranks, int64_t count, void* out,
                  CUstream_st* stream);

}  // namespace sluice::cuda
