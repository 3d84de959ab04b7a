// kernels/mla/tiles.h -- what both directions of the CPU back end share: tiles of 64 rows, and the
// queries and keys of some heads packed and rotated.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/mla/sizes.h"

namespace sluice::mla {

constexpr int64_t kTile = 64;

// Queries of one document that are worked on together, and the keys that they see.
struct Tile {
  int64_t row, rows;  // of the queries' tensor
  int64_t k0, keys;   // the document's first row of the keys' tensor, and its keys
  int64_t position;   // of the first query in its document: it sees keys 0 .. position

  // Of keys j0 .. j0 + n - 1, how many (the first ones) query i of this tile sees.
  int64_t seen(int64_t i, int64_t j0, int64_t n) const {
    return std::clamp<int64_t>(position + i + 1 - j0, 0, n);
  }
  int64_t end() const { return position + rows; }  // keys that any of them sees
  // Queries i .. i + kTile - 1 of a larger tile.
  Tile part(int64_t i) const {
    return {row + i, std::min(kTile, rows - i), k0, keys, position + i};
  }
};

// Every document's queries in tiles of `size`.
template <class Args>
std::vector<Tile> query_tiles(const Args& a, int64_t size) {
  const int32_t *cq = a.cu_seqlens_q.template as<int32_t>(),
                *ck = a.cu_seqlens_k.template as<int32_t>();
  std::vector<Tile> tiles;
  for (int64_t d = 0; d + 1 < a.cu_seqlens_q.dim(0); ++d) {
    const int64_t nq = cq[d + 1] - cq[d], nk = ck[d + 1] - ck[d];
    for (int64_t i = 0; i < nq; i += size)
      tiles.push_back({cq[d] + i, std::min(size, nq - i), ck[d], nk, nk - nq + i});
  }
  return tiles;
}

// Heads h0 .. h0 + heads - 1 in the scratch.
template <class T>
struct Packed {
  Sizes s;
  int64_t h0, heads;
  Scratch memory;

  int64_t width() const { return s.nope + s.rope; }
  T* q(int64_t g, int64_t row) const { return at(memory.q, g, row); }    // [.., width]
  T* k(int64_t g, int64_t row) const { return at(memory.k, g, row); }    // [.., width]
  T* dq(int64_t g, int64_t row) const { return at(memory.dq, g, row); }  // [.., width]
  T* dk(int64_t g, int64_t row) const { return at(memory.dk, g, row); }  // [.., width]
  T* dv(int64_t g, int64_t row) const { return at(memory.dv, g, row); }  // [.., V]
  T* delta(int64_t g) const { return memory.delta.row<T>(g); }           // [Nq]
  // cos and sin by pair of a key's position; null without rotation.
  const T* turn(int64_t key_row) const {
    return memory.turn.dim(0) > 0 ? memory.turn.row<T>(key_row) : nullptr;
  }

 private:
  static T* at(const Tensor& t, int64_t g, int64_t row) { return t.row<T>(g) + row * t.stride[1]; }
};

// Rotates the pairs of x [rope]; `direction` -1 turns a cotangent back.
template <class T>
void turn_pairs(T* x, const T* turn, int64_t rope, T direction) {
  for (int64_t p = 0; p < rope; p += 2) {
    const T c = turn[p], s = direction * turn[p + 1], u = x[p], v = x[p + 1];
    x[p] = u * c - v * s;
    x[p + 1] = u * s + v * c;
  }
}

// Rows of the keys' tensor in blocks, whatever the documents.
template <class Body>
void for_key_rows(const Context& ctx, const Sizes& s, Body body) {
  parallel_for(ctx, (s.Nk + kTile - 1) / kTile, [&](int64_t block) {
    for (int64_t n = block * kTile; n < std::min(s.Nk, (block + 1) * kTile); ++n) body(n);
  });
}

template <class T, class Args>
void make_turns(const Context& ctx, const Args& a, const Sizes& s, const Tensor& turn) {
  if (turn.dim(0) == 0) return;
  std::vector<double> frequency;
  for (int64_t p = 0; p < s.rope; p += 2)
    frequency.push_back(std::pow(a.rope_theta, -double(p) / double(s.rope)));
  const int32_t *ck = a.cu_seqlens_k.template as<int32_t>(), *end = ck + s.documents + 1;
  for_key_rows(ctx, s, [&](int64_t n) {
    const auto position = double(n - *(std::upper_bound(ck, end, int32_t(n)) - 1));
    for (int64_t p = 0; p < s.rope; p += 2) {
      const double angle = position * frequency[size_t(p / 2)];
      turn.row<T>(n)[p] = T(std::cos(angle));
      turn.row<T>(n)[p + 1] = T(std::sin(angle));
    }
  });
}

template <class T, class Args>
void pack(const Context& ctx, const Args& a, const std::vector<Tile>& tiles, const Packed<T>& p) {
  const Sizes& s = p.s;
  const int64_t width = p.width(), kv_width = s.nope + s.V;
  for_key_rows(ctx, s, [&](int64_t n) {
    for (int64_t g = 0; g < p.heads; ++g) {
      T* to = p.k(g, n);
      std::copy_n(a.kv.template row<T>(n) + (p.h0 + g) * kv_width, s.nope, to);
      if (s.rope > 0) std::copy_n(a.k_rope.template row<T>(n), s.rope, to + s.nope);
      if (p.turn(n)) turn_pairs(to + s.nope, p.turn(n), s.rope, T(1));
    }
  });
  parallel_for(ctx, int64_t(tiles.size()), [&](int64_t unit) {
    const Tile& t = tiles[size_t(unit)];
    for (int64_t i = 0; i < t.rows; ++i)
      for (int64_t g = 0; g < p.heads; ++g) {
        T* to = p.q(g, t.row + i);
        std::copy_n(a.q.template row<T>(t.row + i) + (p.h0 + g) * width, width, to);
        const T* turn = p.turn(t.k0 + t.position + i);
        if (turn) turn_pairs(to + s.nope, turn, s.rope, T(1));
      }
  });
}

// score [rows, n], kTile apart: scaled scores of a tile with n keys from j0 on.
template <class T>
void tile_scores(const Packed<T>& p, const Tile& t, int64_t g, int64_t j0, int64_t n, T* score) {
  const int64_t width = p.width();
  gemm<T>(Transpose::no, Transpose::yes, t.rows, n, width, 1 / std::sqrt(T(width)), p.q(g, t.row),
          width, p.k(g, t.k0 + j0), width, 0, score, kTile);
}

}  // namespace sluice::mla
