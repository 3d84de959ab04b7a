// kernels/mla/cuda_turn.cu -- the rotation of queries and of the shared keys, before the products.
#include "kernels/mla/cuda.cuh"

namespace sluice::cuda {
namespace mla_gpu {
namespace {

constexpr int kThreads = 256;

// The document of row n: the last that begins at or before it.
__device__ int document_of(const int* cu, int documents, int n) {
  int low = 0, high = documents;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (cu[middle] <= n ? low : high) = middle;
  }
  return low;
}

__global__ void span_kernel(const int* cu_q, const int* cu_k, int documents, int Nq, Span* span) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= Nq) return;
  const int d = document_of(cu_q, documents, n);
  // The queries are a document's last tokens.
  span[n] = {cu_k[d], cu_k[d + 1] - (cu_q[d + 1] - n)};
}

// turn[j, 2p .. 2p + 1] = cos, sin of position(j) theta^(-2p / rope). The angle of a late position
// has lost its fraction in f32.
__global__ void turn_kernel(const int* cu_k, int documents, int64_t total, int pairs,
                            double log2_theta, float2* turn) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const int j = int(i / pairs), p = int(i % pairs);
  const double position = j - cu_k[document_of(cu_k, documents, j)];
  double s, c;
  sincos(position * exp2(-log2_theta * p / pairs), &s, &c);
  turn[i] = {float(c), float(s)};
}

// to[n, h, :] = from[n, h, :], the last `rope` of its `width` columns turned: 8 columns a thread.
// The position of row n is that of key span[n].last, or of key n if there is no span.
__global__ void turn_rows_kernel(Rows from, bf16* to, const Span* span, const float* turn,
                                 int64_t total, int H, int width, int rope) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const int blocks = width / 8, c = int(i % blocks) * 8;
  const int64_t row = i / blocks, n = row / H;
  float x[8];
  load(x, from[n] + row % H * width + c);
  if (c >= width - rope) {
    float t[8];
    load(t, turn + (span ? span[n].last : n) * rope + c - (width - rope));
#pragma unroll
    for (int e = 0; e < 8; e += 2) turn_pair(x[e], x[e + 1], t[e], t[e + 1]);
  }
  store(to + row * width + c, x);
}

unsigned blocks_for(int64_t total) {
  return unsigned((total + kThreads - 1) / kThreads);
}

}  // namespace

void find_spans(const Context& ctx, const Tensor& cu_q, const Tensor& cu_k, const Tensor& span) {
  const int64_t Nq = span.dim(0);
  if (Nq == 0) return;
  span_kernel<<<blocks_for(Nq), kThreads, 0, ctx.stream>>>(cu_q.as<int32_t>(), cu_k.as<int32_t>(),
                                                           int(cu_q.dim(0) - 1), int(Nq),
                                                           reinterpret_cast<Span*>(span.data));
  SLUICE_LAUNCHED(ctx.stream);
}

void turn_inputs(const Context& ctx, const mla::Sizes& s, const Inputs& in, double theta,
                 const mla::CudaScratch& memory) {
  const int64_t pairs = s.Nk * s.rope / 2;
  if (pairs > 0) {
    turn_kernel<<<blocks_for(pairs), kThreads, 0, ctx.stream>>>(
        in.cu_k.as<int32_t>(), int(s.documents), pairs, int(s.rope / 2), std::log2(theta),
        reinterpret_cast<float2*>(memory.turn.data));
    SLUICE_LAUNCHED(ctx.stream);
  }
  const auto turn_rows = [&](const Tensor& from, const Tensor& to, const Span* span, int64_t H,
                             int64_t width) {
    const int64_t total = to.numel() / 8;
    if (total == 0) return;
    turn_rows_kernel<<<blocks_for(total), kThreads, 0, ctx.stream>>>(
        rows_of(from), to.as<bf16>(), span, memory.turn.as<float>(), total, int(H), int(width),
        int(s.rope));
    SLUICE_LAUNCHED(ctx.stream);
  };
  turn_rows(in.q, memory.q, reinterpret_cast<const Span*>(memory.span.data), s.H, s.nope + s.rope);
  turn_rows(in.k_rope, memory.k_rope, nullptr, 1, s.rope);
}

}  // namespace mla_gpu
}  // namespace sluice::cuda
