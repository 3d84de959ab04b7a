// kernels/muon/cpu.cpp -- each product of the iteration in tiles of rows of all matrices at hand.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/muon/scratch.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

namespace {

constexpr int64_t kRows = 64;  // of a tile

// `count` matrices from b0 on, in the scratch.
template <class T>
struct Group {
  const Context& ctx;
  const Muon& a;
  const MuonScratch& memory;
  int64_t b0, count;
  int64_t m = a.param.dim(1), n = a.param.dim(2), s = std::min(m, n);

  // body(matrix, first row, rows) over tiles of a matrix with `height` rows.
  template <class Body>
  void for_tiles(int64_t height, Body body) const {
    const int64_t tiles = tiles_of(height);
    parallel_for(ctx, count * tiles, [&](int64_t unit) {
      const int64_t row = unit % tiles * kRows;
      body(unit / tiles, row, std::min(kRows, height - row));
    });
  }
  static int64_t tiles_of(int64_t height) { return (height + kRows - 1) / kRows; }
};

// Moves the momentum, writes U, and divides it by its norm: a sum over tiles in their order.
template <class T>
void normalised_update(const Group<T>& g) {
  const int64_t tiles = g.tiles_of(g.m);
  std::vector<double> squares(size_t(g.count * tiles));
  const T scale = T(g.a.state->grad_scale), mu = T(g.a.momentum);
  g.for_tiles(g.m, [&](int64_t b, int64_t row, int64_t rows) {
    const int64_t from = row * g.n, size = rows * g.n;
    const T* __restrict grad = g.a.grad.template row<T>(g.b0 + b) + from;
    T* __restrict M = g.a.m.template row<T>(g.b0 + b) + from;
    T* __restrict x = g.memory.x.template row<T>(b) + from;
    for (int64_t i = 0; i < size; ++i) {
      const T step = grad[i] * scale;
      M[i] = mu * M[i] + step;
      x[i] = mu * M[i] + step;
    }
    squares[size_t(b * tiles + row / kRows)] =
        lane_sum<double>(size, [&](int64_t i) { return double(x[i]) * double(x[i]); });
  });
  std::vector<double> norms(size_t(g.count), 0);
  for (size_t i = 0; i < squares.size(); ++i) norms[i / size_t(tiles)] += squares[i];
  g.for_tiles(g.m, [&](int64_t b, int64_t row, int64_t rows) {
    const double norm = std::sqrt(norms[size_t(b)]);
    if (norm == 0) return;  // zeros stay zeros
    T* x = g.memory.x.template row<T>(b) + row * g.n;
    for (int64_t i = 0; i < rows * g.n; ++i) x[i] = T(double(x[i]) / norm);
  });
}

// y = a x + (b G + c G^2) x with G = x x^T, or for tall matrices y = a x + x (b G + c G^2) with
// G = x^T x: the same, and G is the small one.
template <class T>
void iterate(const Group<T>& g, const Tensor& x, const Tensor& y) {
  const int64_t m = g.m, n = g.n, s = g.s;
  const Tensor &gram = g.memory.gram, &poly = g.memory.poly;
  const bool wide = m <= n;
  g.for_tiles(s, [&](int64_t b, int64_t i, int64_t rows) {
    const T* all = x.row<T>(b);
    gemm<T>(wide ? Transpose::no : Transpose::yes, wide ? Transpose::yes : Transpose::no, rows, s,
            wide ? n : m, 1, wide ? all + i * n : all + i, n, all, n, 0, gram.row<T>(b) + i * s, s);
  });
  g.for_tiles(s, [&](int64_t b, int64_t i, int64_t rows) {
    const T* G = gram.row<T>(b);
    T* out = poly.row<T>(b) + i * s;
    std::copy_n(G + i * s, rows * s, out);
    gemm<T>(Transpose::no, Transpose::no, rows, s, s, T(kMuonC), G + i * s, s, G, s, T(kMuonB), out,
            s);
  });
  g.for_tiles(m, [&](int64_t b, int64_t i, int64_t rows) {
    const T *all = x.row<T>(b), *P = poly.row<T>(b);
    T* out = y.row<T>(b) + i * n;
    std::copy_n(all + i * n, rows * n, out);
    gemm<T>(Transpose::no, Transpose::no, rows, n, s, 1, wide ? P + i * s : all + i * n, s,
            wide ? all : P, n, T(kMuonA), out, n);
  });
}

template <class T>
void apply(const Group<T>& g, const Tensor& x) {
  const T lr = T(g.a.state->lr * g.a.lr_scale), decay = T(g.a.weight_decay);
  const T scale = T(0.2 * std::sqrt(double(std::max(g.m, g.n))));
  g.for_tiles(g.m, [&](int64_t b, int64_t row, int64_t rows) {
    T* __restrict p = g.a.param.template row<T>(g.b0 + b) + row * g.n;
    const T* __restrict o = x.row<T>(b) + row * g.n;
    for (int64_t i = 0; i < rows * g.n; ++i) p[i] -= lr * (decay * p[i] + scale * o[i]);
  });
}

}  // namespace

void muon(const Context& ctx, const Muon& a, const MuonScratch& scratch) {
  const int64_t B = a.param.dim(0);
  if (a.state->skip || a.param.numel() == 0) return;
  for_float_type(a.param, [&]<class T>(T) {
    const int64_t most = scratch.x.dim(0);
    for (int64_t b0 = 0; b0 < B; b0 += most) {
      const Group<T> g{ctx, a, scratch, b0, std::min(most, B - b0)};
      normalised_update(g);
      Tensor x = scratch.x, y = scratch.y;
      for (int64_t step = 0; step < a.ns_steps; ++step) {
        iterate(g, x, y);
        std::swap(x, y);
      }
      apply(g, x);
    }
  });
}

}  // namespace sluice::cpu
