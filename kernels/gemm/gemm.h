// kernels/gemm/gemm.h -- one matrix product on the calling thread: the tile that CPU ops are made
// of.
//
//   c[M,N] = alpha * op(a)[M,K] * op(b)[K,N] + beta * c        row-major, f32 or f64
//
// Backed by OpenBLAS held to one thread: ops split their work into tiles fixed by the shape and
// hand them to parallel_for, so that the number of threads changes no bit.
#pragma once

#include <cstdint>

namespace sluice {

enum class Transpose : uint8_t { no, yes };

// lda, ldb, ldc: elements from one stored row to the next; a is stored [M,K], or [K,M] if
// transposed. With beta == 0, c is written without being read. Any of M, N, K may be 0.
template <class T>
void gemm(Transpose transpose_a, Transpose transpose_b, int64_t M, int64_t N, int64_t K, T alpha,
          const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc);

// c[M,N] = a[M,K] b[N,K]^T, each element summed in an order that depends on K alone: a BLAS picks
// its kernel by shape, so there a row's last bits depend on how many rows come with it. In 64-byte
// lanes, which are then added pairwise. Faster than the BLAS for few rows (bench_linear).
template <class T>
void gemm_rowwise(int64_t M, int64_t N, int64_t K, const T* a, int64_t lda, const T* b, int64_t ldb,
                  T* c, int64_t ldc);

// b[M,N] = (I + L)^-1 b, or (I + L)^-T b: L [M,M] is strictly lower triangular; what is stored on
// and above its diagonal is not read. In place, row-major, by substitution.
template <class T>
void solve_unit_lower(Transpose transpose, int64_t M, int64_t N, const T* L, int64_t ldl, T* b,
                      int64_t ldb);

// "OpenBLAS 0.3.21 ... SkylakeX": part of the fingerprint of a run.
const char* gemm_library();

}  // namespace sluice
