// kernels/embedding/embedding.cu -- gather; backward sums the rows of each token in their order.
//
// Backward: the rows are sorted by token by counting, for every row, how many come before it. N^2
// comparisons: 10 us at 8192 rows, 0.5 ms at 65536, and nothing to tune or to go wrong. Then pieces
// of kPiece sorted rows are summed, each run of one token in order. A run inside of a piece is
// done. Of a run that crosses pieces each piece keeps its part (head: it began before; tail: it
// goes on), and a second kernel adds them in order. So every sum has one order, whatever the
// timing.
#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/sizes.h"
#include "kernels/tensor/fill.h"

namespace sluice::cuda {

constexpr int kThreads = 256;

// A CTA a row.
template <int E>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const int* tokens, Rows table, Rows y, int D) {
  const int64_t n = blockIdx.x, token = tokens[n];
  for (int d = threadIdx.x * E; d < D; d += kThreads * E) {
    float v[E];
    load(v, table[token] + d);
    store(y[n] + d, v);
  }
}

// order[place of row n] = n, sorted by (token, n); sorted[place] = token.
__global__ void __launch_bounds__(kThreads)
    sort_kernel(const int* tokens, int N, int* order, int* sorted) {
  __shared__ int tile[kThreads];
  const int n = blockIdx.x * kThreads + threadIdx.x;
  const int mine = n < N ? tokens[n] : 0;
  int place = 0;
  for (int begin = 0; begin < N; begin += kThreads) {
    const int m = begin + int(threadIdx.x);
    __syncthreads();
    tile[threadIdx.x] = m < N ? tokens[m] : 0x7fffffff;
    __syncthreads();
    // Equal tokens come first if their row does: in tiles before this one all, behind it none.
    if (begin + kThreads <= int(blockIdx.x) * kThreads) {
#pragma unroll 16
      for (int i = 0; i < kThreads; ++i) place += tile[i] <= mine;
    } else if (begin > int(blockIdx.x) * kThreads) {
#pragma unroll 16
      for (int i = 0; i < kThreads; ++i) place += tile[i] < mine;
    } else {
#pragma unroll 16
      for (int i = 0; i < kThreads; ++i) place += tile[i] < mine + (i < int(threadIdx.x));
    }
  }
  if (n >= N) return;
  order[place] = n;
  sorted[place] = mine;
}

struct Sums {
  const int *order, *sorted;
  int N, D;
  float* parts;  // [pieces, 2, D]: head and tail of a piece
  float* table;  // [V, D], rows `stride` apart
  int64_t stride;
  int add;
};

// Piece blockIdx.x, columns blockIdx.y * kThreads ...
__global__ void __launch_bounds__(kThreads) sum_pieces_kernel(Sums s, Rows dy) {
  const int d = blockIdx.y * kThreads + threadIdx.x;
  if (d >= s.D) return;
  const int begin = int(blockIdx.x * kEmbeddingPiece), end = min(begin + int(kEmbeddingPiece), s.N);
  float* parts = s.parts + int64_t(blockIdx.x) * 2 * s.D + d;
  int from = begin;  // of the run
  float sum = 0;
#pragma unroll 4
  for (int i = begin; i < end; ++i) {
    sum += __bfloat162float(dy[s.order[i]][d]);
    const int token = s.sorted[i];
    if (i + 1 < end && s.sorted[i + 1] == token) continue;
    const bool before = from == begin && begin > 0 && s.sorted[begin - 1] == token;
    const bool behind = i + 1 == end && end < s.N && s.sorted[end] == token;
    if (before) {
      parts[0] = sum;
    } else if (behind) {
      parts[s.D] = sum;
    } else {
      float* to = s.table + token * s.stride + d;
      *to = s.add ? *to + sum : sum;
    }
    from = i + 1, sum = 0;
  }
}

// The run that begins in piece blockIdx.x and goes on behind it, if there is one.
__global__ void __launch_bounds__(kThreads) join_kernel(Sums s) {
  const int d = blockIdx.y * kThreads + threadIdx.x;
  const int begin = int(blockIdx.x * kEmbeddingPiece), end = begin + int(kEmbeddingPiece);
  if (d >= s.D || end >= s.N) return;
  const int token = s.sorted[end - 1];
  if (s.sorted[end] != token) return;  // nothing goes on
  if (begin > 0 && s.sorted[begin - 1] == token && s.sorted[begin] == token)
    return;  // it began before this piece
  float sum = s.parts[int64_t(blockIdx.x) * 2 * s.D + s.D + d];
  for (int p = blockIdx.x + 1;
       p * int(kEmbeddingPiece) < s.N && s.sorted[p * int(kEmbeddingPiece)] == token; ++p)
    sum += s.parts[int64_t(p) * 2 * s.D + d];
  float* to = s.table + token * s.stride + d;
  *to = s.add ? *to + sum : sum;
}

void embedding_forward(const Context& ctx, const EmbeddingForward& a, const EmbeddingScratch&) {
  const int64_t N = a.y.dim(0), D = a.y.dim(1);
  if (N == 0 || D == 0) return;
  const bool aligned = D % 8 == 0 && rows_aligned({a.table, a.y});
  (aligned ? forward_kernel<8> : forward_kernel<1>)<<<unsigned(N), kThreads, 0, ctx.stream>>>(
      a.tokens.as<int32_t>(), rows_of(a.table), rows_of(a.y), int(D));
  SLUICE_LAUNCHED(ctx.stream);
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& a, const EmbeddingScratch& m) {
  const int64_t N = a.dy.dim(0), D = a.dy.dim(1);
  const Tensor& table = a.dtable.t;
  if (!a.dtable.add) zero(ctx, table);
  if (N == 0 || D == 0) return;
  sort_kernel<<<unsigned((N + kThreads - 1) / kThreads), kThreads, 0, ctx.stream>>>(
      a.tokens.as<int32_t>(), int(N), m.order.as<int32_t>(), m.sorted.as<int32_t>());
  SLUICE_LAUNCHED(ctx.stream);
  const Sums s{m.order.as<int32_t>(), m.sorted.as<int32_t>(), int(N),          int(D),
               m.parts.as<float>(),   table.as<float>(),      table.stride[0], a.dtable.add};
  const dim3 grid(unsigned(m.parts.dim(0)), unsigned((D + kThreads - 1) / kThreads));
  sum_pieces_kernel<<<grid, kThreads, 0, ctx.stream>>>(s, rows_of(a.dy));
  SLUICE_LAUNCHED(ctx.stream);
  join_kernel<<<grid, kThreads, 0, ctx.stream>>>(s);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
