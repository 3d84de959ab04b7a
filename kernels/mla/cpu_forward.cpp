// kernels/mla/cpu_forward.cpp -- online softmax over tiles of 64 keys, one (query tile, head) a
// unit.
#include <limits>

#include "kernels/base/fast_math.h"
#include "kernels/mla/tiles.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"
#include "kernels/tensor/workspace.h"

namespace sluice::cpu {

using namespace mla;

namespace {

// Scores become weights exp(score - top): top [rows] is the largest so far; what was summed under
// another one is scaled. 0 where a key is not seen.
template <class T>
void online_softmax(const Tile& t, int64_t j0, int64_t n, int64_t V, T* score, T* top, T* sum,
                    T* o) {
  for (int64_t i = 0; i < t.rows; ++i) {
    T* row = score + i * kTile;
    const int64_t seen = t.seen(i, j0, n);
    std::fill_n(row + seen, n - seen, T(0));
    if (seen == 0) continue;
    const T peak = std::max(top[i], lane_max<T>(seen, [&](int64_t j) { return row[j]; }));
    const T keep = fast_exp(top[i] - peak);
    for (int64_t j = 0; j < seen; ++j) row[j] = fast_exp(row[j] - peak);
    sum[i] = sum[i] * keep + lane_sum<T>(seen, [&](int64_t j) { return row[j]; });
    for (int64_t e = 0; e < V; ++e) o[i * V + e] *= keep;
    top[i] = peak;
  }
}

// Returns the tile's largest score.
template <class T>
T tile_forward(const MlaForward& a, const Packed<T>& p, const Tile& t, int64_t g) {
  const int64_t V = p.s.V, h = p.h0 + g;
  Workspace<T> memory(kTile * kTile + Workspace<T>::rounded(kTile * V) + 2 * kTile);
  T *score = memory.take(kTile * kTile), *o = memory.take(kTile * V);
  T *top = memory.take(kTile), *sum = memory.take(kTile);
  std::fill_n(o, t.rows * V, T(0));
  std::fill_n(top, t.rows, -std::numeric_limits<T>::infinity());
  std::fill_n(sum, t.rows, T(0));
  for (int64_t j0 = 0; j0 < t.end(); j0 += kTile) {
    const int64_t n = std::min(kTile, t.keys - j0);
    tile_scores(p, t, g, j0, n, score);
    online_softmax(t, j0, n, V, score, top, sum, o);
    gemm<T>(Transpose::no, Transpose::no, t.rows, V, n, 1, score, kTile,
            a.kv.row<T>(t.k0 + j0) + h * (p.s.nope + V) + p.s.nope, a.kv.stride[0], 1, o, V);
  }
  for (int64_t i = 0; i < t.rows; ++i) {
    T* out = a.o.row<T>(t.row + i) + h * V;
    for (int64_t e = 0; e < V; ++e) out[e] = o[i * V + e] / sum[i];
    a.lse.row<T>(t.row + i)[h] = top[i] + std::log(sum[i]);
  }
  return *std::max_element(top, top + t.rows);
}

}  // namespace

void mla_forward(const Context& ctx, const MlaForward& a, const Scratch& scratch) {
  const Sizes s = sizes_of(a);
  const std::vector<Tile> tiles = query_tiles(a, kTile);
  for_float_type(a.q, [&]<class T>(T) {
    make_turns<T>(ctx, a, s, scratch.turn);
    for (int64_t h0 = 0; h0 < s.H; h0 += kHeads) {
      const Packed<T> p{s, h0, std::min(kHeads, s.H - h0), scratch};
      pack(ctx, a, tiles, p);
      const int64_t units = int64_t(tiles.size()) * p.heads;
      std::vector<T> top(static_cast<size_t>(units));  // of each unit
      parallel_for(ctx, units, [&](int64_t unit) {
        const int64_t u = units - 1 - unit;  // late tiles first: they see the most keys
        top[size_t(u)] = tile_forward(a, p, tiles[size_t(u / p.heads)], u % p.heads);
      });
      for (int64_t u = 0; u < units; ++u)
        raise_max_logit(a, h0 + u % p.heads, double(top[size_t(u)]));
    }
  });
}

}  // namespace sluice::cpu
