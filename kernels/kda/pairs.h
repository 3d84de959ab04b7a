// kernels/kda/pairs.h -- the pairs (i, j <= i) of a chunk in blocks whose decay splits into two
// factors.
//
//   e^{G_i - G_j} = e^{G_i - G_anchor} e^{G_anchor - G_j}
//
// The triangle of a chunk is halved: below its two half triangles lies a square of rows i >= anchor
// > columns j, where both exponents are <= 0 whatever the gate. A triangle of at most kSub rows is
// one block, anchored in its middle, if neither exponent passes +-kSafeRange there; else it is
// halved on, down to single rows, whose only exponent is 0. Nothing is clamped and no history is
// dropped.
#pragma once

#include "kernels/kda/chunk.h"

namespace sluice::kda {

constexpr int64_t kSub = 16;

// e^40 = 2e17 each way: the product of two such factors, with |q|, |k| <= 1 before them, stays
// inside f32. A gate of -5 a token reaches it with 8 rows each side, so the bounded law halves no
// further.
constexpr double kSafeRange = 40;

struct PairBlock {
  int64_t row, rows, column, columns;  // a triangle if row == column
  bool triangle() const { return row == column; }
};

// Does the decay from the middle row to either end of rows first .. first + count - 1 stay in
// range?
template <class T>
bool middle_anchor_is_safe(const Chunk<T>& c, int64_t first, int64_t count) {
  const int64_t K = c.K, middle = first + count / 2, end = first + count;
  T* __restrict sum = c.sum;
  int unsafe = 0;
  for (const int64_t from : {first + 1, middle + 1}) {
    const int64_t to = from == first + 1 ? middle + 1 : end;
    std::fill_n(sum, K, T(0));
    for (int64_t i = from; i < to; ++i)
      for (int64_t d = 0; d < K; ++d) sum[d] -= c.g[i * K + d];
    for (int64_t d = 0; d < K; ++d) unsafe += !(sum[d] <= T(kSafeRange));
  }
  return unsafe == 0;
}

// Fills c.rows, c.row_decay, c.columns and c.column_decay of a block.
template <class T>
void pair_factors(Chunk<T>& c, const PairBlock& b) {
  const int64_t K = c.K, at = b.triangle() ? b.rows / 2 : 0, anchor = b.row + at;
  T *x = c.row_decay, *y = c.column_decay;  // exponents first
  std::fill_n(x + at * K, K, T(0));
  for (int64_t i = at + 1; i < b.rows; ++i)
    add(x + (i - 1) * K, c.g + (b.row + i) * K, x + i * K, K);
  const int64_t before = anchor - b.column;  // columns j < anchor
  if (before > 0) std::copy_n(c.g + anchor * K, K, y + (before - 1) * K);
  for (int64_t j = before - 2; j >= 0; --j)
    add(y + (j + 1) * K, c.g + (b.column + j + 1) * K, y + j * K, K);
  if (b.triangle()) {  // the halves where an exponent is > 0
    for (int64_t e = 0; e < at * K; ++e) x[e] = -y[e];
    for (int64_t e = at * K; e < b.rows * K; ++e) y[e] = -x[e];
  }
  exp_all(x, b.rows * K);
  exp_all(y, b.columns * K);
  multiply(c.q + b.row * K, x, c.rows, b.rows * K);
  multiply(c.k + b.row * K, x, c.rows + b.rows * K, b.rows * K);
  multiply(c.w + b.column * K, y, c.columns, b.columns * K);
}

// visit(block), its factors filled in, for blocks that cover every pair j <= i of the rows once.
template <class T, class Visit>
void for_pair_blocks(Chunk<T>& c, int64_t first, int64_t count, const Visit& visit) {
  if (count == 1 || (count <= kSub && middle_anchor_is_safe(c, first, count))) {
    const PairBlock triangle{first, count, first, count};
    pair_factors(c, triangle);
    return visit(triangle);
  }
  const int64_t middle = count / 2;
  const int64_t half = count <= kSub ? middle : (middle + kSub - 1) / kSub * kSub;
  const PairBlock square{first + half, count - half, first, half};
  pair_factors(c, square);
  visit(square);
  for_pair_blocks(c, first, half, visit);
  for_pair_blocks(c, first + half, count - half, visit);
}

}  // namespace sluice::kda
