// kernels/muon/cpu.cpp -- elements in blocks; each product of the iteration in tiles of rows of all
// matrices at hand.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/muon/scratch.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"
#include "kernels/tensor/rounding_blocks.h"

namespace sluice::cpu {

constexpr int64_t kElements = 1 << 14;  // of a block

// body(begin, end) over blocks of n elements.
template <class Body>
static void for_blocks(const Context& ctx, int64_t n, Body body) {
  parallel_for(ctx, (n + kElements - 1) / kElements, [&](int64_t block) {
    body(block * kElements, std::min(n, (block + 1) * kElements));
  });
}

// Elements begin .. end with a momentum in bf16.
template <class T>
static void move_bf16(const MuonMomentum& a, T scale, T mu, int64_t begin, int64_t end) {
  RoundingBlock random;
  const T* grad = a.grad.as<T>();
  uint16_t* M = static_cast<uint16_t*>(a.m.data);
  T* u = a.u.as<T>();
  for (int64_t i = begin; i < end; i += RoundingBlock::kMost) {
    const int64_t n = std::min(end - i, RoundingBlock::kMost);
    const uint32_t* r = random.draw(a.rounding, i, n, a.state->step);
    for (int64_t j = i; j < i + n; ++j) {
      // Written out: whatever the compiler fused must not depend on where in a loop j is.
      const T step = grad[j] * scale, moved = std::fma(mu, T(widen_bf16(M[j])), step);
      M[j] = round_stochastic(float(moved), r[j - i] & 0xffff);
      u[j] = std::fma(mu, moved, step);
    }
  }
}

void muon_momentum(const Context& ctx, const MuonMomentum& a) {
  if (a.state->skip) return;
  for_float_type(a.grad, [&]<class T>(T) {
    const T scale = T(a.state->grad_scale), mu = T(a.momentum);
    for_blocks(ctx, a.grad.dim(0), [&](int64_t begin, int64_t end) {
      if (a.m.dtype == DType::bf16) return move_bf16(a, scale, mu, begin, end);
      const T* __restrict grad = a.grad.as<T>();
      T* __restrict M = a.m.as<T>(), * __restrict u = a.u.as<T>();
      for (int64_t i = begin; i < end; ++i) {
        const T step = grad[i] * scale;
        M[i] = mu * M[i] + step;
        u[i] = mu * M[i] + step;
      }
    });
  });
}

void muon_apply(const Context& ctx, const MuonApply& a) {
  if (a.state->skip) return;
  for_float_type(a.param, [&]<class T>(T) {
    const T lr = T(a.state->lr * a.lr_scale), decay = T(a.weight_decay);
    const T scale = T(muon_size(a.longer));
    for_blocks(ctx, a.param.dim(0), [&](int64_t begin, int64_t end) {
      T* __restrict p = a.param.as<T>();
      const T* __restrict x = a.x.as<T>();
      for (int64_t i = begin; i < end; ++i) p[i] -= lr * (decay * p[i] + scale * x[i]);
    });
  });
}

namespace {

constexpr int64_t kRows = 64;  // of a tile

// `count` matrices, x [count, m, n].
template <class T>
struct Group {
  const Context& ctx;
  const Tensor& x;
  const MuonScratch& memory;
  int64_t count = x.dim(0), m = x.dim(1), n = x.dim(2), s = std::min(m, n);

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

// to = x / its norm: a sum over tiles in their order.
template <class T>
void normalise(const Group<T>& g, const Tensor& to) {
  const int64_t tiles = g.tiles_of(g.m);
  std::vector<double> squares(size_t(g.count * tiles));
  g.for_tiles(g.m, [&](int64_t b, int64_t row, int64_t rows) {
    const T* x = g.x.template row<T>(b) + row * g.n;
    squares[size_t(b * tiles + row / kRows)] =
        lane_sum<double>(rows * g.n, [&](int64_t i) { return double(x[i]) * double(x[i]); });
  });
  std::vector<double> norms(size_t(g.count), 0);
  for (size_t i = 0; i < squares.size(); ++i) norms[i / size_t(tiles)] += squares[i];
  g.for_tiles(g.m, [&](int64_t b, int64_t row, int64_t rows) {
    const double norm = std::sqrt(norms[size_t(b)]);
    const T* x = g.x.template row<T>(b) + row * g.n;
    T* y = to.row<T>(b) + row * g.n;
    for (int64_t i = 0; i < rows * g.n; ++i)  // zeros stay zeros
      y[i] = norm == 0 ? x[i] : T(double(x[i]) / norm);
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

}  // namespace

// The iteration goes to and fro between x and y; it begins where it ends in x.
void orthogonalize(const Context& ctx, const Orthogonalize& a, const MuonScratch& scratch) {
  const int64_t B = a.x.dim(0);
  if (a.state->skip || a.x.numel() == 0) return;
  for_float_type(a.x, [&]<class T>(T) {
    const int64_t most = scratch.y.dim(0);
    for (int64_t b = 0; b < B; b += most) {
      const int64_t count = std::min(most, B - b);
      Tensor x = a.x.rows(b, count), y = scratch.y.rows(0, count);
      const Group<T> g{ctx, x, scratch};
      if (a.ns_steps % 2 == 1) {
        normalise(g, y);
        std::swap(x, y);
      } else {
        normalise(g, x);
      }
      for (int64_t step = 0; step < a.ns_steps; ++step) {
        iterate(g, x, y);
        std::swap(x, y);
      }
    }
  });
}

}  // namespace sluice::cpu
