// kernels/embedding/reference.cpp -- plain loops in the order of the formula; never optimised.
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/sizes.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void embedding_forward(const Context&, const EmbeddingForward& a, const EmbeddingScratch&) {
  for_float_type(a.table, [&]<class T>(T) {
    for (int64_t n = 0; n < a.y.dim(0); ++n)
      for (int64_t d = 0; d < a.y.dim(1); ++d)
        a.y.row<T>(n)[d] = a.table.row<T>(a.tokens.as<int32_t>()[n])[d];
  });
}

void embedding_backward(const Context&, const EmbeddingBackward& a, const EmbeddingScratch&) {
  for_float_type(a.dy, [&]<class T>(T) {
    const Tensor& out = a.dtable.t;
    for (int64_t v = 0; !a.dtable.add && v < out.dim(0); ++v)
      for (int64_t d = 0; d < out.dim(1); ++d) out.row<T>(v)[d] = 0;
    for (int64_t n = 0; n < a.dy.dim(0); ++n)
      for (int64_t d = 0; d < a.dy.dim(1); ++d)
        out.row<T>(a.tokens.as<int32_t>()[n])[d] += a.dy.row<T>(n)[d];
  });
}

}  // namespace sluice::reference
