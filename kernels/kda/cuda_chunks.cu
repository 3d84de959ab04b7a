// kernels/kda/cuda_chunks.cu -- the table of chunks: where each document's begin.
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda::kda_gpu {

namespace {

// first[d], by one CTA: each thread sums some consecutive documents, then thread 0 the threads'.
// Then a document's chunks, a warp a document.
__global__ void __launch_bounds__(1024)
    chunk_table_kernel(const int32_t* cu, int documents, int chunks, Memory m) {
  __shared__ int sums[1024];
  const int each = (documents + 1023) / 1024, begin = min(int(threadIdx.x) * each, documents);
  const int end = min(begin + each, documents);
  const auto count = [cu](int d) { return (cu[d + 1] - cu[d] + kC - 1) / kC; };
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
    m.first[d] = sum;
    sum += count(d);
  }
  if (end == documents && begin <= end) m.first[documents] = sum;
  __syncthreads();
  for (int d = threadIdx.x / 32; d < documents; d += 32)
    for (int c = threadIdx.x % 32; c < count(d); c += 32)
      m.chunk[m.first[d] + c] = {cu[d] + c * kC, min(cu[d + 1] - cu[d] - c * kC, kC)};
  for (int c = m.first[documents] + int(threadIdx.x); c < chunks; c += 1024) m.chunk[c] = {0, 0};
}

}  // namespace

void number_chunks(const Context& ctx, const Tensor& cu_seqlens, const kda::Sizes& s,
                   const Memory& m) {
  chunk_table_kernel<<<1, 1024, 0, ctx.stream>>>(cu_seqlens.as<int32_t>(), int(s.documents),
                                                 int(s.chunks()), m);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda::kda_gpu
