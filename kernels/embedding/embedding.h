// kernels/embedding/embedding.h -- rows of a table by token.
//
//   y[n] = table[tokens[n]]        dtable[v] = sum over n with tokens[n] == v of dy[n], in order of
//   n
//
// Dims: N tokens, V vocabulary, D width. T is f32 or f64 on the CPU, bf16 on CUDA; S sums: f32 for
// bf16, else T.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct EmbeddingForward {
  Tensor tokens;  // in  [N]    i32, 0 .. V-1: on the CPU another id is an Error with row and id,
                  // on CUDA it must not be there
  Tensor table;   // in  [V, D] T
  Tensor y;       // out [N, D] T
};
struct EmbeddingBackward {
  Tensor tokens;  // in  [N]    i32
  Tensor dy;      // in  [N, D] T
  Grad dtable;    // out [V, D] S; rows that no token names are zero when written
};

void embedding_forward(const Context& ctx, const EmbeddingForward& a);
void embedding_backward(const Context& ctx, const EmbeddingBackward& a);

}  // namespace sluice
