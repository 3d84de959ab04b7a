// kernels/comm/rank_order.h -- the arithmetic of the collectives, for back ends that have all
// ranks' elements in their memory.
#pragma once

#include <span>

#include "kernels/tensor/tensor.h"

namespace sluice {

enum class RankReduce : uint8_t { sum, max };

// out[j][i] = the sum or maximum over p, in the order of the ranks, of x[p][i], for all j and
// i < count. f32, f64, i32 and i64; integer sums wrap. An out[j] may be an x[p].
void reduce_ranks(RankReduce how, DType dtype, std::span<const void* const> x,
                  std::span<void* const> out, int64_t count);

// to[to_begin + i] = from[from_begin + i], i < count, of dense host tensors of one dtype; nothing
// if that is the same memory.
void copy_elements(const Tensor& from, int64_t from_begin, const Tensor& to, int64_t to_begin,
                   int64_t count);

}  // namespace sluice
