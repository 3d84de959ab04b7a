// kernels/chunks/cuda_table.cu -- the table, by one CTA.
#include "kernels/chunks/cuda_table.h"

#include "kernels/base/cuda_check.h"

namespace sluice::chunks {

namespace {

// first[d]: each thread sums some consecutive documents, then thread 0 the threads'. Then a
// document's chunks, a warp a document.
__global__ void __launch_bounds__(1024)
    chunk_table_kernel(const int32_t* cu, int documents, int chunks, int size, ChunkAt* chunk,
                       int* first) {
  __shared__ int sums[1024];
  const int each = (documents + 1023) / 1024, begin = min(int(threadIdx.x) * each, documents);
  const int end = min(begin + each, documents);
  const auto count = [cu, size](int d) { return (cu[d + 1] - cu[d] + size - 1) / size; };
  int sum = 0;
  for (int d = begin; d < end; ++d) sum += count(d);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int t = 0, total = 0; t < 1024; ++t) {
      const int mine = sums[t];
      sums[t] = total;
      total += mine;
    }
  __syncthreads();
  sum = sums[threadIdx.x];
  for (int d = begin; d < end; ++d) {
    first[d] = sum;
    sum += count(d);
  }
  if (end == documents) first[documents] = sum;
  __syncthreads();
  for (int d = int(threadIdx.x) / 32; d < documents; d += 32)
    for (int c = int(threadIdx.x) % 32; c < count(d); c += 32)
      chunk[first[d] + c] = {cu[d] + c * size, min(cu[d + 1] - cu[d] - c * size, size)};
  for (int c = first[documents] + int(threadIdx.x); c < chunks; c += 1024) chunk[c] = {0, 0};
}

}  // namespace

void make_chunk_table(const Context& ctx, const Tensor& cu_seqlens, int64_t chunks, int size,
                      ChunkAt* chunk, int* first) {
  chunk_table_kernel<<<1, 1024, 0, ctx.stream>>>(
      cu_seqlens.as<int32_t>(), int(cu_seqlens.dim(0) - 1), int(chunks), size, chunk, first);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::chunks
