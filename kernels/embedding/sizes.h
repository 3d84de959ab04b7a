// kernels/embedding/sizes.h -- scratch of the CUDA back end's backward.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

constexpr int64_t kEmbeddingPiece = 32;  // sorted rows that are summed on their own

struct EmbeddingScratch {
  Tensor order, sorted;  // [N] i32: rows sorted by token, and the tokens
  Tensor parts;          // [ceil(N / 32), 2, D] f32
};

}  // namespace sluice
