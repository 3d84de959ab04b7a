// kernels/mla/cpu_backward.cpp -- probabilities made again from lse; pairs of a span of queries and
// one of keys, in waves in which no two share a span, so that every sum has one writer and one
// order.
#include "kernels/base/fast_math.h"
#include "kernels/mla/tiles.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"
#include "kernels/tensor/workspace.h"

namespace sluice::cpu {

using namespace mla;

namespace {

// Queries, and keys, of a pair that one thread works on: what it reads and adds to stays in L2.
constexpr int64_t kSpan = 8 * kTile;

template <class T>
void zero_grads(const Context& ctx, const Packed<T>& p) {
  for (const Tensor* t : {&p.memory.dq, &p.memory.dk, &p.memory.dv}) {
    const int64_t blocks = (t->dim(1) + kTile - 1) / kTile;
    parallel_for(ctx, p.heads * blocks, [&](int64_t unit) {
      const int64_t row = unit % blocks * kTile, rows = std::min(kTile, t->dim(1) - row);
      std::fill_n(t->row<T>(unit / blocks) + row * t->stride[1], rows * t->stride[1], T(0));
    });
  }
}

// delta_i = d_o_i . o_i: the part of ds that all keys of a query share.
template <class T>
void make_delta(const Context& ctx, const MlaBackward& a, const std::vector<Tile>& tiles,
                const Packed<T>& p) {
  parallel_for(ctx, int64_t(tiles.size()), [&](int64_t unit) {
    const Tile& t = tiles[size_t(unit)];
    for (int64_t n = t.row; n < t.row + t.rows; ++n)
      for (int64_t g = 0; g < p.heads; ++g) {
        const T *x = a.d_o.row<T>(n) + (p.h0 + g) * p.s.V, *o = a.o.row<T>(n) + (p.h0 + g) * p.s.V;
        p.delta(g)[n] = lane_sum<T>(p.s.V, [&](int64_t e) { return x[e] * o[e]; });
      }
  });
}

// Scores become probabilities, and dp the cotangents of the scores; 0 where a key is not seen.
template <class T>
void score_cotangents(const MlaBackward& a, const Packed<T>& p, const Tile& t, int64_t g,
                      int64_t j0, int64_t n, T* prob, T* dp) {
  const T scale = 1 / std::sqrt(T(p.width()));
  for (int64_t i = 0; i < t.rows; ++i) {
    T* __restrict pr = prob + i * kTile, * __restrict ds = dp + i * kTile;
    const T lse = a.lse.row<T>(t.row + i)[p.h0 + g], delta = p.delta(g)[t.row + i];
    const int64_t seen = t.seen(i, j0, n);
    for (int64_t j = 0; j < seen; ++j) {
      pr[j] = fast_exp(pr[j] - lse);
      ds[j] = pr[j] * (ds[j] - delta) * scale;
    }
    std::fill_n(pr + seen, n - seen, T(0));
    std::fill_n(ds + seen, n - seen, T(0));
  }
}

// One tile of queries with n keys from j0 on; prob and ds [kTile, kTile] are memory.
template <class T>
void tile_backward(const MlaBackward& a, const Packed<T>& p, const Tile& t, int64_t g, int64_t j0,
                   int64_t n, T* prob, T* ds) {
  const int64_t V = p.s.V, width = p.width(), m = t.rows, h = p.h0 + g, key = t.k0 + j0;
  const int64_t os = a.d_o.stride[0];
  const T* d_o = a.d_o.row<T>(t.row) + h * V;
  tile_scores(p, t, g, j0, n, prob);
  gemm<T>(Transpose::no, Transpose::yes, m, n, V, 1, d_o, os,
          a.kv.row<T>(key) + h * (p.s.nope + V) + p.s.nope, a.kv.stride[0], 0, ds, kTile);
  score_cotangents(a, p, t, g, j0, n, prob, ds);
  gemm<T>(Transpose::yes, Transpose::no, n, V, m, 1, prob, kTile, d_o, os, 1, p.dv(g, key), V);
  gemm<T>(Transpose::no, Transpose::no, m, width, n, 1, ds, kTile, p.k(g, key), width, 1,
          p.dq(g, t.row), width);
  gemm<T>(Transpose::yes, Transpose::no, n, width, m, 1, ds, kTile, p.q(g, t.row), width, 1,
          p.dk(g, key), width);
}

// A span of queries with the span of keys from j0 on, tile by tile.
template <class T>
void span_backward(const MlaBackward& a, const Packed<T>& p, const Tile& span, int64_t g,
                   int64_t j0) {
  Workspace<T> memory(2 * kTile * kTile);
  T *prob = memory.take(kTile * kTile), *ds = memory.take(kTile * kTile);
  for (int64_t i = 0; i < span.rows; i += kTile) {
    const Tile t = span.part(i);
    for (int64_t j = j0; j < std::min(j0 + kSpan, t.end()); j += kTile)
      tile_backward(a, p, t, g, j, std::min(kTile, t.keys - j), prob, ds);
  }
}

// Where the keys begin that a span of queries is paired with in a wave: on the diagonal first, then
// leftwards. Spans of one document are kSpan apart, so no two of a wave have the same keys.
int64_t first_key(const Tile& span, int64_t wave) {
  return ((span.position + kSpan - 1) / kSpan - wave) * kSpan;
}

template <class T>
void waves(const Context& ctx, const MlaBackward& a, const std::vector<Tile>& spans,
           const Packed<T>& p) {
  std::vector<const Tile*> active;
  active.reserve(spans.size());
  for (int64_t wave = 0;; ++wave) {
    active.clear();
    bool more = false;
    for (const Tile& span : spans) {
      const int64_t j0 = first_key(span, wave);
      more |= j0 >= 0;
      if (j0 >= 0 && j0 < span.end()) active.push_back(&span);
    }
    if (!more) return;
    parallel_for(ctx, int64_t(active.size()) * p.heads, [&](int64_t unit) {
      const Tile& span = *active[size_t(unit / p.heads)];
      span_backward(a, p, span, unit % p.heads, first_key(span, wave));
    });
  }
}

// Back into the caller's tensors; dk_rope adds up the heads in order.
template <class T>
void unpack(const Context& ctx, const MlaBackward& a, const std::vector<Tile>& tiles,
            const Packed<T>& p) {
  const Sizes& s = p.s;
  const int64_t width = p.width();
  parallel_for(ctx, int64_t(tiles.size()), [&](int64_t unit) {
    const Tile& t = tiles[size_t(unit)];
    for (int64_t i = 0; i < t.rows; ++i)
      for (int64_t g = 0; g < p.heads; ++g) {
        T *x = p.dq(g, t.row + i), *out = a.dq.t.row<T>(t.row + i) + (p.h0 + g) * width;
        const T* turn = p.turn(t.k0 + t.position + i);
        if (turn) turn_pairs(x + s.nope, turn, s.rope, T(-1));
        for (int64_t d = 0; d < width; ++d) put(out[d], x[d], a.dq.add);
      }
  });
  for_key_rows(ctx, s, [&](int64_t n) {
    for (int64_t g = 0; g < p.heads; ++g) {
      T *x = p.dk(g, n), *out = a.dkv.t.row<T>(n) + (p.h0 + g) * (s.nope + s.V);
      const T* dv = p.dv(g, n);
      for (int64_t d = 0; d < s.nope; ++d) put(out[d], x[d], a.dkv.add);
      for (int64_t e = 0; e < s.V; ++e) put(out[s.nope + e], dv[e], a.dkv.add);
      if (p.turn(n)) turn_pairs(x + s.nope, p.turn(n), s.rope, T(-1));
      for (int64_t d = 0; d < s.rope; ++d)
        put(a.dk_rope.t.row<T>(n)[d], x[s.nope + d], a.dk_rope.add || p.h0 + g > 0);
    }
  });
}

}  // namespace

void mla_backward(const Context& ctx, const MlaBackward& a, const Scratch& scratch) {
  const Sizes s = sizes_of(a);
  const std::vector<Tile> tiles = query_tiles(a, kTile), spans = query_tiles(a, kSpan);
  for_float_type(a.q, [&]<class T>(T) {
    make_turns<T>(ctx, a, s, scratch.turn);
    for (int64_t h0 = 0; h0 < s.H; h0 += kHeads) {
      const Packed<T> p{s, h0, std::min(kHeads, s.H - h0), scratch};
      pack(ctx, a, tiles, p);
      zero_grads(ctx, p);
      make_delta(ctx, a, tiles, p);
      waves(ctx, a, spans, p);
      unpack(ctx, a, tiles, p);
    }
  });
}

}  // namespace sluice::cpu
