// kernels/embedding/cpu.cpp -- forward by rows; backward by ranges of columns, so that no two
// threads share an output and every sum keeps the order of the tokens.
#include <algorithm>
#include <cstring>

#include "kernels/embedding/embedding.h"
#include "kernels/embedding/sizes.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kRows = 256, kColumns = 64;

void embedding_forward(const Context& ctx, const EmbeddingForward& a, const EmbeddingScratch&) {
  const int64_t N = a.y.dim(0);
  const size_t width = size_t(a.y.dim(1) * size_of(a.y.dtype));
  for_float_type(a.table, [&]<class T>(T) {
    parallel_for(ctx, (N + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t n = block * kRows; n < std::min(N, (block + 1) * kRows); ++n)
        std::memcpy(a.y.row<T>(n), a.table.row<T>(a.tokens.as<int32_t>()[n]), width);
    });
  });
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& a, const EmbeddingScratch&) {
  const int64_t N = a.dy.dim(0), D = a.dy.dim(1), V = a.dtable.t.dim(0);
  for_float_type(a.dy, [&]<class T>(T) {
    parallel_for(ctx, (D + kColumns - 1) / kColumns, [&](int64_t block) {
      const int64_t begin = block * kColumns, count = std::min(D - begin, kColumns);
      if (!a.dtable.add)
        for (int64_t v = 0; v < V; ++v) std::fill_n(a.dtable.t.row<T>(v) + begin, count, T(0));
      for (int64_t n = 0; n < N; ++n) {
        T* to = a.dtable.t.row<T>(a.tokens.as<int32_t>()[n]) + begin;
        const T* from = a.dy.row<T>(n) + begin;
        for (int64_t d = 0; d < count; ++d) to[d] += from[d];
      }
    });
  });
}

}  // namespace sluice::cpu
