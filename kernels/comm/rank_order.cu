// kernels/comm/rank_order.cu -- one thread an element; the ranks one after the other.
#include <algorithm>

#include "kernels/base/cuda_check.h"
#include "kernels/comm/rank_order_cuda.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;

struct Sum {
  template <class T>
  __device__ static T combine(T a, T b) {
    return a + b;
  }
};
struct Max {  // a NaN stays, whoever has it
  template <class T>
  __device__ static T combine(T a, T b) {
    return a > b || a != a ? a : b;
  }
};

// x [ranks, count] -> out [count]
template <class How, class T>
__global__ void reduce_kernel(const T* x, int ranks, int64_t count, T* out) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    T r = x[i];
    for (int p = 1; p < ranks; ++p) r = How::template combine<T>(r, x[p * count + i]);
    out[i] = r;
  }
}

template <class How, class T>
void launch(const void* x, int ranks, int64_t count, void* out, CUstream_st* stream) {
  const auto blocks = unsigned(std::min<int64_t>((count + kThreads - 1) / kThreads, 132 * 8));
  reduce_kernel<How, T><<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(x), ranks, count,
                                                         static_cast<T*>(out));
  SLUICE_LAUNCHED(stream);
}

// Unsigned for sums of integers: they wrap.
template <class T, class Unsigned>
void launch(RankReduce how, const void* x, int ranks, int64_t count, void* out,
            CUstream_st* stream) {
  if (how == RankReduce::sum)
    launch<Sum, Unsigned>(x, ranks, count, out, stream);
  else
    launch<Max, T>(x, ranks, count, out, stream);
}

}  // namespace

void reduce_ranks(RankReduce how, DType dtype, const void* x, int ranks, int64_t count, void* out,
                  CUstream_st* stream) {
  if (count == 0) return;
  switch (dtype) {
    case DType::f32: return launch<float, float>(how, x, ranks, count, out, stream);
    case DType::f64: return launch<double, double>(how, x, ranks, count, out, stream);
    case DType::i32: return launch<int32_t, uint32_t>(how, x, ranks, count, out, stream);
    case DType::i64: return launch<int64_t, uint64_t>(how, x, ranks, count, out, stream);
    default: return;  // Comm has refused it
  }
}

}  // namespace sluice::cuda
