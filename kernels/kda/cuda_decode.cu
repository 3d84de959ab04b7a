// kernels/kda/cuda_decode.cu -- one token a document: the recurrence, a CTA a document and value
// head, its state in registers.
//
// Both products with the old state are made in one pass over it, since
//   S' = diag(e^g) S + b kn e^T,  e = v - S^T (e^g kn)
//   S'^T qn = S^T (e^g qn) + (qn kn) b e
// so the state is read once and written once. q and k stay as they are in shared memory; their
// norms are factors of sums.
#include "kernels/kda/cuda.cuh"

namespace sluice::cuda::kda_gpu {

namespace {

constexpr int kRows = 8;  // of the state, a thread; 4 columns each

struct Token {
  Rows q, k, v, g, beta, o;
  Gate gate;
  const int* cu;
  const float* initial;  // [documents, HV, D, D], or null
  float* final;          // likewise
  int H, HV;
};

template <int D>
constexpr int kDecodeThreads = D* D / 4 / kRows;

template <int D>
struct Shared {
  static constexpr int kGroups = D / kRows;  // of threads that share columns
  float read[kGroups][2][D];                 // parts of S^T (e^g k) and S^T (e^g q)
  float k[D], kd[D], qd[D], decay[D];        // kd, qd: times the decay
  float write[D];                            // b e / |k|
  float sums[3][D / 32];                     // q q, k k and q k, by warp
};

// Channel d = threadIdx.x of the token into shared memory.
template <int D>
__device__ void load_channel(const Token& t, int64_t n, int h, int hv, Shared<D>& s) {
  const int d = threadIdx.x;
  const float q = __bfloat162float(t.q[n][h * D + d]), k = __bfloat162float(t.k[n][h * D + d]);
  const float z = __bfloat162float(t.g[n][hv * D + d]) + t.gate.bias[hv * D + d];
  const float decay = __expf(log_decay(t.gate, __expf(t.gate.A_log[hv]), z));
  s.k[d] = k, s.kd[d] = k * decay, s.qd[d] = q * decay, s.decay[d] = decay;
  const float qq = warp_sum(q * q), kk = warp_sum(k * k), qk = warp_sum(q * k);
  if (d % 32 == 0) s.sums[0][d / 32] = qq, s.sums[1][d / 32] = kk, s.sums[2][d / 32] = qk;
}

// Output and error of column v = threadIdx.x, from the parts of both sums.
template <int D>
__device__ void finish_column(const Token& t, int64_t n, int hv, Shared<D>& s) {
  const int v = threadIdx.x;
  float qq = 0, kk = 0, qk = 0, kS = 0, qS = 0;
#pragma unroll
  for (int w = 0; w < D / 32; ++w) qq += s.sums[0][w], kk += s.sums[1][w], qk += s.sums[2][w];
#pragma unroll
  for (int i = 0; i < Shared<D>::kGroups; ++i) kS += s.read[i][0][v], qS += s.read[i][1][v];
  const float q_norm = rsqrtf(qq + kEps) * rsqrtf(float(D)), k_norm = rsqrtf(kk + kEps);
  const float b = t.gate.beta_max * sigmoid(__bfloat162float(t.beta[n][hv]));
  const float e = b * (__bfloat162float(t.v[n][hv * D + v]) - k_norm * kS);
  s.write[v] = k_norm * e;
  t.o[n][hv * D + v] = __float2bfloat16(q_norm * (qS + qk * k_norm * e));
}

template <int D>
__global__ void __launch_bounds__(kDecodeThreads<D>) decode_kernel(Token t) {
  __shared__ Shared<D> s;
  const int hv = blockIdx.x, document = blockIdx.y;
  const int64_t n = t.cu[document];
  const bool idle = t.cu[document + 1] == n;
  if (idle && t.initial == t.final) return;
  const int column = threadIdx.x % (D / 4) * 4, group = threadIdx.x / (D / 4);
  const int64_t at = ((int64_t(document) * t.HV + hv) * D + group * kRows) * D + column;
  float4 S[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    S[r] = t.initial ? *reinterpret_cast<const float4*>(t.initial + at + r * D) : float4{};
  if (!idle) {
    if (threadIdx.x < D) load_channel(t, n, hv / (t.HV / t.H), hv, s);
    __syncthreads();
    float4 k{}, q{};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float kd = s.kd[group * kRows + r], qd = s.qd[group * kRows + r];
      k.x += kd * S[r].x, k.y += kd * S[r].y, k.z += kd * S[r].z, k.w += kd * S[r].w;
      q.x += qd * S[r].x, q.y += qd * S[r].y, q.z += qd * S[r].z, q.w += qd * S[r].w;
    }
    *reinterpret_cast<float4*>(&s.read[group][0][column]) = k;
    *reinterpret_cast<float4*>(&s.read[group][1][column]) = q;
    __syncthreads();
    if (threadIdx.x < D) finish_column(t, n, hv, s);
    __syncthreads();
    const float4 e = *reinterpret_cast<const float4*>(&s.write[column]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float decay = s.decay[group * kRows + r], kr = s.k[group * kRows + r];
      S[r] = {decay * S[r].x + kr * e.x, decay * S[r].y + kr * e.y, decay * S[r].z + kr * e.z,
              decay * S[r].w + kr * e.w};
    }
  }
  if (!t.final) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) *reinterpret_cast<float4*>(t.final + at + r * D) = S[r];
}

template <int D>
void decode(const Context& ctx, const Token& t, int64_t documents) {
  decode_kernel<D>
      <<<dim3(unsigned(t.HV), unsigned(documents)), kDecodeThreads<D>, 0, ctx.stream>>>(t);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace
}  // namespace sluice::cuda::kda_gpu

namespace sluice::cuda {

void kda_decode(const Context& ctx, const KdaForward& a) {
  using namespace kda_gpu;
  const kda::Sizes s = kda::sizes_of(a);
  SLUICE_CHECK(a.q.dtype == DType::bf16 && s.documents < 65536, "q is ", to_string(a.q), ", of ",
               s.documents, " documents");
  if (s.documents == 0) return;
  const Token t{rows(a.q),
                rows(a.k),
                rows(a.v),
                rows(a.g),
                rows(a.beta),
                rows(a.o),
                gate_of(a),
                a.cu_seqlens.as<int32_t>(),
                a.initial_state ? a.initial_state.as<float>() : nullptr,
                a.final_state ? a.final_state.as<float>() : nullptr,
                int(s.H),
                int(s.HV)};
  s.K == 64 ? decode<64>(ctx, t, s.documents) : decode<128>(ctx, t, s.documents);
}

}  // namespace sluice::cuda
