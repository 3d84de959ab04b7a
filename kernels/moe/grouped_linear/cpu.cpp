// kernels/moe/grouped_linear/cpu.cpp -- the tiles of each expert in one list, one thread a tile.
#include <algorithm>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/moe/grouped_linear/grouped_linear.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kRows = 256;     // rows a tile: enough for the BLAS to reach its rate
constexpr int64_t kOutputs = 128;  // rows of w a tile

namespace {
struct Tile {
  int64_t expert, begin, count;  // rows of x, or of w[expert]
};
}  // namespace

// The rows of every expert in pieces of kRows. The cut depends on the offsets alone, so that the
// number of threads changes no bit.
static std::vector<Tile> row_tiles(const Tensor& offsets) {
  std::vector<Tile> tiles;
  const int32_t* begin = offsets.as<int32_t>();
  for (int64_t e = 0; e + 1 < offsets.dim(0); ++e)
    for (int64_t r = begin[e]; r < begin[e + 1]; r += kRows)
      tiles.push_back({e, r, std::min<int64_t>(kRows, begin[e + 1] - r)});
  return tiles;
}

void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a) {
  const int64_t F = a.w.dim(1), D = a.w.dim(2), tiles_f = (F + kOutputs - 1) / kOutputs;
  const std::vector<Tile> tiles = row_tiles(a.offsets);
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, int64_t(tiles.size()) * tiles_f, [&](int64_t i) {
      const Tile& t = tiles[size_t(i / tiles_f)];
      const int64_t f = i % tiles_f * kOutputs, outputs = std::min(F - f, kOutputs);
      const T *x = a.x.row<T>(t.begin), *w = a.w.row<T>(t.expert) + f * D;
      T* y = a.y.row<T>(t.begin) + f;
      if (ctx.mode == Mode::batch_invariant)
        gemm_rowwise<T>(t.count, outputs, D, x, a.x.stride[0], w, D, y, a.y.stride[0]);
      else
        gemm<T>(Transpose::no, Transpose::yes, t.count, outputs, D, 1, x, a.x.stride[0], w, D, 0, y,
                a.y.stride[0]);
    });
  });
}

void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a) {
  const int64_t E = a.w.dim(0), F = a.w.dim(1), D = a.w.dim(2);
  const int64_t tiles_f = (F + kOutputs - 1) / kOutputs, tiles_w = E * tiles_f;
  const std::vector<Tile> tiles = row_tiles(a.offsets);
  const int32_t* begin = a.offsets.as<int32_t>();
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, tiles_w + int64_t(tiles.size()), [&](int64_t i) {
      if (i < tiles_w) {  // dw first: its tiles are the longest. Without rows K = 0: zero or kept
        const int64_t e = i / tiles_f, f = i % tiles_f * kOutputs;
        gemm<T>(Transpose::yes, Transpose::no, std::min(F - f, kOutputs), D,
                begin[e + 1] - begin[e], 1, a.dy.row<T>(begin[e]) + f, a.dy.stride[0],
                a.x.row<T>(begin[e]), a.x.stride[0], a.dw.add ? 1 : 0, a.dw.t.row<T>(e) + f * D, D);
        return;
      }
      const Tile& t = tiles[size_t(i - tiles_w)];
      gemm<T>(Transpose::no, Transpose::no, t.count, D, F, 1, a.dy.row<T>(t.begin), a.dy.stride[0],
              a.w.row<T>(t.expert), D, a.dx.add ? 1 : 0, a.dx.t.row<T>(t.begin), a.dx.t.stride[0]);
    });
  });
}

}  // namespace sluice::cpu
