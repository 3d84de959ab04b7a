// kernels/linear/cpu.cpp -- BLAS tiles fixed by the shape, one thread a tile.
#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/linear/linear.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kRows = 256;     // tokens a tile: enough for the BLAS to reach its rate
constexpr int64_t kOutputs = 128;  // rows of w a tile

// Each row by itself: tiles of about a million multiply-adds, so that one token of a small model
// does not wake a thread for less than waking it costs. Tiles change no bit here.
static void linear_rowwise(const Context& ctx, const LinearForward& a) {
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  const int64_t rows = std::min<int64_t>(N, 64),
                enough = (1 << 20) / std::max<int64_t>(1, rows * D);
  const int64_t outputs = std::max<int64_t>(64, enough / 16 * 16);
  const int64_t tiles_n = N > 0 ? (N + rows - 1) / rows : 0, tiles_f = (F + outputs - 1) / outputs;
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, tiles_n * tiles_f, [&](int64_t tile) {
      const int64_t n = tile / tiles_f * rows, f = tile % tiles_f * outputs;
      gemm_rowwise<T>(std::min(N - n, rows), std::min(F - f, outputs), D, a.x.row<T>(n),
                      a.x.stride[0], a.w.row<T>(f), a.w.stride[0], a.y.row<T>(n) + f,
                      a.y.stride[0]);
    });
  });
}

void linear_forward(const Context& ctx, const LinearForward& a, const Tensor&) {
  if (ctx.mode == Mode::batch_invariant) return linear_rowwise(ctx, a);
  const int64_t N = a.x.dim(0), D = a.x.dim(1), F = a.w.dim(0);
  const int64_t tiles_n = (N + kRows - 1) / kRows, tiles_f = (F + kOutputs - 1) / kOutputs;
  for_float_type(a.x, [&]<class T>(T) {
    parallel_for(ctx, tiles_n * tiles_f, [&](int64_t tile) {
      const int64_t n = tile / tiles_f * kRows, f = tile % tiles_f * kOutputs;
      gemm<T>(Transpose::no, Transpose::yes, std::min(N - n, kRows), std::min(F - f, kOutputs), D,
              1, a.x.row<T>(n), a.x.stride[0], a.w.row<T>(f), a.w.stride[0], 0, a.y.row<T>(n) + f,
              a.y.stride[0]);
    });
  });
}

void linear_backward(const Context& ctx, const LinearBackward& a, const Tensor&) {
  const int64_t N = a.dy.dim(0), D = a.w.dim(1), F = a.w.dim(0);
  const int64_t tiles_n = a.dx ? (N + kRows - 1) / kRows : 0;
  const int64_t tiles_f = a.dw ? (F + kOutputs - 1) / kOutputs : 0;
  for_float_type(a.w, [&]<class T>(T) {
    parallel_for(ctx, tiles_f + tiles_n, [&](int64_t tile) {
      if (tile < tiles_f) {  // dw first: its tiles are the longest
        const int64_t f = tile * kOutputs;
        gemm<T>(Transpose::yes, Transpose::no, std::min(F - f, kOutputs), D, N, 1, a.dy.as<T>() + f,
                a.dy.stride[0], a.x.as<T>(), a.x.stride[0], a.dw.add ? 1 : 0, a.dw.t.row<T>(f),
                a.dw.t.stride[0]);
        return;
      }
      const int64_t n = (tile - tiles_f) * kRows;
      gemm<T>(Transpose::no, Transpose::no, std::min(N - n, kRows), D, F, 1, a.dy.row<T>(n),
              a.dy.stride[0], a.w.as<T>(), a.w.stride[0], a.dx.add ? 1 : 0, a.dx.t.row<T>(n),
              a.dx.t.stride[0]);
    });
  });
}

}  // namespace sluice::cpu
