// kernels/chunks/cuda_general_forward.cu -- L and P by chunk, and the state through a document's
// chunks.
#include "kernels/base/cuda_check.h"
#include "kernels/chunks/cuda_general.cuh"
#include "kernels/device/reduce.cuh"

namespace sluice::chunks {

namespace general {

namespace {

// P_ij = q_i . e^{G_i - G_j} w_j (i >= j), L_ij the same with k (i > j); a warp two columns j.
__global__ void __launch_bounds__(kThreads)
    pairs_kernel(GeneralSizes s, GeneralMemory m, int delta_rule) {
  const int64_t unit = blockIdx.x;
  const int hv = int(unit % s.HV), lane = int(threadIdx.x) % 32;
  const ChunkAt at = m.chunk[unit / s.HV];
  if (at.C == 0) return;
  const auto row = [&](int i) { return (at.n0 + i) * s.HV + hv; };
  for (int j = int(threadIdx.x) / 32; j < kC; j += kThreads / 32) {
    float p[kC] = {}, l[kC] = {};
    for (int d = lane; j < at.C && d < s.K; d += 32) {
      const float w = m.k[row(j) * s.K + d] * m.b[row(j)];
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kC; ++i) {
        if (i < j || i >= at.C) continue;
        if (i > j) sum += m.g[row(i) * s.G + (s.G == 1 ? 0 : d)];
        const float e = expf(sum) * w;
        p[i] += m.q[row(i) * s.K + d] * e;
        if (i > j && delta_rule) l[i] += m.k[row(i) * s.K + d] * e;
      }
    }
#pragma unroll
    for (int i = 0; i < kC; ++i) {
      p[i] = warp_sum(p[i]), l[i] = warp_sum(l[i]);
      if (lane != 0) continue;
      m.P[(unit * kC + i) * kC + j] = p[i];
      m.L[(unit * kC + i) * kC + j] = l[i];
    }
  }
}

// A chunk of a CTA's 32 columns: a thread a column and rows i, i + 8.
__device__ void chunk_forward(const GeneralForward& a, const GeneralMemory& m, const ScanMemory& s,
                              ChunkAt at, int64_t unit, int hv, int v0, bool keeps) {
  const int K = int(a.size.K), V = int(a.size.V);
  const int c = int(threadIdx.x) % kVTile, i0 = int(threadIdx.x) / kVTile, v = v0 + c;
  float read[2] = {}, o[2] = {};
  for (int d = 0; d < K; ++d) {
    const float x = s.state[d * kVTile + c];
    for (int r = 0; r < 2; ++r) {
      read[r] += s.rows.k[(i0 + 8 * r) * K + d] * x;
      o[r] += s.rows.q[(i0 + 8 * r) * K + d] * x;
    }
  }
  for (int r = 0; r < 2; ++r) {
    const int i = i0 + 8 * r;
    const bool there = i < at.C && v < V;
    s.x[i * kVTile + c] = there ? __bfloat162float(a.v[at.n0 + i][hv * V + v]) - read[r] : 0;
  }
  __syncthreads();
  if (threadIdx.x < kVTile)  // E = (I + L)^-1 Y
    for (int i = 1; i < kC; ++i) {
      float e = s.x[i * kVTile + c];
      for (int j = 0; j < i; ++j) e -= s.L[i * kC + j] * s.x[j * kVTile + c];
      s.x[i * kVTile + c] = e;
    }
  __syncthreads();
  for (int r = 0; r < 2; ++r) {
    const int i = i0 + 8 * r;
    for (int j = 0; j <= i; ++j) o[r] += s.P[i * kC + j] * s.x[j * kVTile + c];
    if (v >= V) continue;
    if (i < at.C) a.o[at.n0 + i][hv * V + v] = __float2bfloat16(o[r]);
    if (keeps) m.E[(unit * kC + i) * V + v] = s.x[i * kVTile + c];
  }
  for (int d = i0; d < K; d += kThreads / kVTile) {
    float x = s.state[d * kVTile + c];
    if (keeps && v < V) m.S[(unit * K + d) * V + v] = x;
    x *= s.rows.gamma[d];
    for (int i = 0; i < kC; ++i) x += s.rows.w[i * K + d] * s.x[i * kVTile + c];
    s.state[d * kVTile + c] = x;
  }
}

__global__ void __launch_bounds__(kThreads)
    scan_kernel(GeneralForward a, GeneralMemory m, int keeps) {
  extern __shared__ __align__(16) float memory[];
  const int K = int(a.size.K), V = int(a.size.V), HV = int(a.size.HV);
  const ScanMemory s(memory, K);
  const int tiles = (V + kVTile - 1) / kVTile, v0 = int(blockIdx.x) % tiles * kVTile;
  const int64_t head = blockIdx.x / tiles;
  const int hv = int(head % HV), document = int(head / HV);
  const auto state_at = [&](int e) { return (head * K + e / kVTile) * V + v0 + e % kVTile; };
  for (int e = int(threadIdx.x); e < K * kVTile; e += kThreads)
    s.state[e] = a.initial && v0 + e % kVTile < V ? a.initial[state_at(e)] : 0;
  for (int chunk = m.first[document]; chunk < m.first[document + 1]; ++chunk) {
    const int64_t unit = int64_t(chunk) * HV + hv;
    const ChunkAt at = m.chunk[chunk];
    __syncthreads();
    load_rows(s.rows, m, a.size, a.gate.delta_rule, at, hv);
    s.L[threadIdx.x] = m.L[unit * kC * kC + threadIdx.x];
    s.P[threadIdx.x] = m.P[unit * kC * kC + threadIdx.x];
    __syncthreads();
    chunk_forward(a, m, s, at, unit, hv, v0, keeps);
  }
  __syncthreads();
  for (int e = int(threadIdx.x); a.final && e < K * kVTile; e += kThreads)
    if (v0 + e % kVTile < V) a.final[state_at(e)] = s.state[e];
}
static_assert(kThreads == kC * kC && kThreads == kVTile * kC / 2);

}  // namespace

}  // namespace general

using namespace general;

int64_t general_bytes(const GeneralSizes& s, bool keeps) {
  return GeneralMemory(nullptr, s, keeps).bytes;
}

void general_forward(const Context& ctx, const GeneralForward& a, void* workspace, bool keeps) {
  const GeneralSizes& s = a.size;
  if (s.documents == 0) return;
  const GeneralMemory m(workspace, s, keeps);
  make_chunk_table(ctx, a.cu_seqlens, s.chunks(), kC, m.chunk, m.first);
  make_rows(ctx, a, m);
  pairs_kernel<<<unsigned(s.chunks() * s.HV), kThreads, 0, ctx.stream>>>(s, m, a.gate.delta_rule);
  SLUICE_LAUNCHED(ctx.stream);
  const int64_t tiles = (s.V + kVTile - 1) / kVTile;
  allow_shared(scan_kernel, ScanMemory::bytes(kGeneralMaxDim));
  scan_kernel<<<unsigned(s.documents * s.HV * tiles), kThreads, ScanMemory::bytes(s.K),
                ctx.stream>>>(a, m, keeps);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::chunks
