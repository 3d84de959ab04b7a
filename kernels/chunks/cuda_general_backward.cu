// kernels/chunks/cuda_general_backward.cu -- the state's gradient from a document's last chunk to
// its first; cotangents of a chunk's rows; then through norms and gates by token.
#include "kernels/base/cuda_check.h"
#include "kernels/chunks/cuda_general.cuh"

namespace sluice::chunks {

namespace general {

namespace {

__device__ void chunk_backward(const GeneralBackward& a, const GeneralMemory& m,
                               const GeneralScratch& b, const ScanMemory& s, ChunkAt at,
                               int64_t unit, int hv, int v0) {
  const int K = int(a.size.K), V = int(a.size.V);
  const int c = int(threadIdx.x) % kVTile, i0 = int(threadIdx.x) / kVTile, v = v0 + c;
  for (int i = i0; i < kC; i += 8)
    s.y[i * kVTile + c] = i < at.C && v < V ? __bfloat162float(a.d_o[at.n0 + i][hv * V + v]) : 0;
  __syncthreads();
  float e[2] = {};  // dE = P^T dO + w D
  for (int d = 0; d < K; ++d)
    for (int r = 0; r < 2; ++r) e[r] += s.rows.w[(i0 + 8 * r) * K + d] * s.state[d * kVTile + c];
  for (int r = 0; r < 2; ++r) {
    const int j = i0 + 8 * r;
    for (int i = j; i < kC; ++i) e[r] += s.P[i * kC + j] * s.y[i * kVTile + c];
    s.x[j * kVTile + c] = e[r];
  }
  __syncthreads();
  if (threadIdx.x < kVTile)  // X = (I + L)^-T dE
    for (int j = kC - 2; j >= 0; --j) {
      float x = s.x[j * kVTile + c];
      for (int i = j + 1; i < kC; ++i) x -= s.L[i * kC + j] * s.x[i * kVTile + c];
      s.x[j * kVTile + c] = x;
    }
  __syncthreads();
  for (int i = i0; v < V && i < kC; i += 8) {
    float x[1] = {s.x[i * kVTile + c]};
    b.X[(unit * kC + i) * V + v] = x[0];
    if (i < at.C) put(a.dv[at.n0 + i] + hv * V + v, x, a.add_dv);
  }
  for (int d = i0; d < K; d += kThreads / kVTile) {
    float x = s.state[d * kVTile + c];
    if (v < V) b.D[(unit * K + d) * V + v] = x;
    x *= s.rows.gamma[d];
    for (int i = 0; i < kC; ++i)
      x += s.rows.q[i * K + d] * s.y[i * kVTile + c] - s.rows.k[i * K + d] * s.x[i * kVTile + c];
    s.state[d * kVTile + c] = x;
  }
}

__global__ void __launch_bounds__(kThreads)
    scan_backward_kernel(GeneralBackward a, GeneralMemory m, GeneralScratch b) {
  extern __shared__ __align__(16) float memory[];
  const int K = int(a.size.K), V = int(a.size.V), HV = int(a.size.HV);
  const ScanMemory s(memory, K);
  const int tiles = (V + kVTile - 1) / kVTile, v0 = int(blockIdx.x) % tiles * kVTile;
  const int64_t head = blockIdx.x / tiles;
  const int hv = int(head % HV), document = int(head / HV);
  const auto state_at = [&](int e) { return (head * K + e / kVTile) * V + v0 + e % kVTile; };
  for (int e = int(threadIdx.x); e < K * kVTile; e += kThreads)
    s.state[e] = a.dfinal && v0 + e % kVTile < V ? a.dfinal[state_at(e)] : 0;
  for (int chunk = m.first[document + 1] - 1; chunk >= m.first[document]; --chunk) {
    const int64_t unit = int64_t(chunk) * HV + hv;
    const ChunkAt at = m.chunk[chunk];
    __syncthreads();
    load_rows(s.rows, m, a.size, a.gate.delta_rule, at, hv);
    s.L[threadIdx.x] = m.L[unit * kC * kC + threadIdx.x];
    s.P[threadIdx.x] = m.P[unit * kC * kC + threadIdx.x];
    __syncthreads();
    chunk_backward(a, m, b, s, at, unit, hv, v0);
  }
  __syncthreads();
  for (int e = int(threadIdx.x); a.dinitial && e < K * kVTile; e += kThreads) {
    if (v0 + e % kVTile >= V) continue;
    float x[1] = {s.state[e]};
    put(a.dinitial + state_at(e), x, a.add_dinitial);
  }
}

// One channel of a chunk and value head: log decay, q, k and w = b k of its tokens; cotangents a of
// q, r of k as a reader, c of w; dg of the log decay.
struct Channel {
  float g[kC], q[kC], k[kC], w[kC], a[kC] = {}, r[kC] = {}, c[kC] = {}, dg[kC];
};

// Of a chunk in shared memory: [V, 16], then N = dO E^T and M = -X E^T [16, 16].
struct ChunkValues {
  __device__ ChunkValues(float* p, int V)
      : d_o(p), X(p + V * kC), E(p + 2 * V * kC), N(p + 3 * V * kC), M(N + kC * kC) {}
  static size_t bytes(int64_t V) { return size_t((3 * V + 2 * kC) * kC) * sizeof(float); }
  float *d_o, *X, *E, *N, *M;
};

__device__ void load_values(const GeneralBackward& t, const float* X, const float* E, ChunkAt at,
                            int hv, const ChunkValues& s) {
  const int V = int(t.size.V), i = int(threadIdx.x) / kC, j = int(threadIdx.x) % kC;
  for (int e = int(threadIdx.x); e < V * kC; e += kThreads) {
    const int row = e / V, to = e % V * kC + row;
    s.d_o[to] = row < at.C ? __bfloat162float(t.d_o[at.n0 + row][hv * V + e % V]) : 0;
    s.X[to] = X[e], s.E[to] = E[e];
  }
  __syncthreads();
  float n = 0, m = 0;
  for (int v = 0; v < V; ++v) {
    n += s.d_o[v * kC + i] * s.E[v * kC + j];
    m -= s.X[v * kC + i] * s.E[v * kC + j];
  }
  s.N[threadIdx.x] = n, s.M[threadIdx.x] = t.gate.delta_rule ? m : 0;
  __syncthreads();
}

// What comes through the states around the chunk; S and D are the channel's rows of them.
__device__ void through_states(Channel& x, const ChunkValues& s, const float* S, const float* D,
                               int V, int delta_rule) {
  float across = 0, sum = 0, terms = 0;
  for (int v = 0; v < V; ++v) {
    across += S[v] * D[v];
#pragma unroll
    for (int i = 0; i < kC; ++i) {
      x.a[i] += S[v] * s.d_o[v * kC + i];
      x.r[i] -= S[v] * s.X[v * kC + i];
      x.c[i] += D[v] * s.E[v * kC + i];
    }
  }
#pragma unroll
  for (int i = 0; i < kC; ++i) {
    sum += x.g[i];
    const float e = expf(sum);
    x.a[i] *= e;
    x.r[i] *= delta_rule ? e : 0;
  }
  across *= expf(sum);
  sum = 0;
#pragma unroll
  for (int i = kC - 1; i >= 0; --i) {  // tokens >= i read the state that entered
    x.c[i] *= expf(sum);
    sum += x.g[i];
    terms += x.q[i] * x.a[i] + x.k[i] * x.r[i];
    x.dg[i] = terms + across;
  }
  terms = 0;
#pragma unroll
  for (int i = 0; i < kC; ++i) {  // tokens < i wrote to the one that leaves
    x.dg[i] += terms;
    terms += x.w[i] * x.c[i];
  }
}

// The pairs' terms: a, r and c get theirs, dg that of all tokens between.
__device__ void through_pairs(Channel& x, const ChunkValues& s) {
#pragma unroll
  for (int j = 0; j < kC; ++j) {
    x.a[j] += s.N[j * kC + j] * x.w[j];
    x.c[j] += s.N[j * kC + j] * x.q[j];
    float sum = 0, z[kC];
#pragma unroll
    for (int i = j + 1; i < kC; ++i) {
      sum += x.g[i];
      const float e = expf(sum), n = s.N[i * kC + j] * e, m = s.M[i * kC + j] * e;
      x.a[i] += n * x.w[j], x.r[i] += m * x.w[j];
      const float reads = n * x.q[i] + m * x.k[i];
      x.c[j] += reads;
      z[i] = reads * x.w[j];
    }
    sum = 0;
#pragma unroll
    for (int i = kC - 1; i > j; --i) {
      sum += z[i];
      x.dg[i] += sum;
    }
  }
}

// a, r, c and dg of a chunk and value head, a thread a channel.
__global__ void __launch_bounds__(kThreads)
    gradients_kernel(GeneralBackward t, GeneralMemory m, GeneralScratch b) {
  extern __shared__ __align__(16) float memory[];
  const int K = int(t.size.K), V = int(t.size.V), HV = int(t.size.HV);
  const ChunkValues s(memory, V);
  const int64_t unit = blockIdx.x;
  const int hv = int(unit % HV), d = int(threadIdx.x);
  const ChunkAt at = m.chunk[unit / HV];
  if (at.C == 0) return;
  load_values(t, b.X + unit * kC * V, m.E + unit * kC * V, at, hv, s);
  if (d >= K) return;
  Channel x;
#pragma unroll
  for (int i = 0; i < kC; ++i) {
    const int64_t row = (at.n0 + min(i, at.C - 1)) * int64_t(HV) + hv;
    const bool there = i < at.C;
    x.g[i] = there ? m.g[row * t.size.G + (t.size.G == 1 ? 0 : d)] : 0;
    x.q[i] = there ? m.q[row * K + d] : 0;
    x.k[i] = there ? m.k[row * K + d] : 0;
    x.w[i] = x.k[i] * m.b[row];
  }
  const int64_t state = (unit * K + d) * V;
  through_states(x, s, m.S + state, b.D + state, V, t.gate.delta_rule);
  through_pairs(x, s);
#pragma unroll
  for (int i = 0; i < kC; ++i) {
    if (i >= at.C) continue;
    const int64_t e = ((at.n0 + i) * int64_t(HV) + hv) * K + d;
    b.a[e] = x.a[i], b.r[e] = x.r[i], b.c[e] = x.c[i], b.dg[e] = x.dg[i];
  }
}

}  // namespace

}  // namespace general

using namespace general;

int64_t general_backward_bytes(const GeneralSizes& s) {
  return GeneralScratch(nullptr, s).bytes;
}

void general_backward(const Context& ctx, const GeneralBackward& a, void* kept, void* scratch) {
  const GeneralSizes& s = a.size;
  const GeneralMemory m(kept, s, true);
  const GeneralScratch b(scratch, s);
  if (s.documents > 0) {
    const int64_t tiles = (s.V + kVTile - 1) / kVTile;
    allow_shared(scan_backward_kernel, ScanMemory::bytes(kGeneralMaxDim));
    scan_backward_kernel<<<unsigned(s.documents * s.HV * tiles), kThreads, ScanMemory::bytes(s.K),
                           ctx.stream>>>(a, m, b);
    SLUICE_LAUNCHED(ctx.stream);
    allow_shared(gradients_kernel, ChunkValues::bytes(kGeneralMaxDim));
    gradients_kernel<<<unsigned(s.chunks() * s.HV), kThreads, ChunkValues::bytes(s.V),
                       ctx.stream>>>(a, m, b);
    SLUICE_LAUNCHED(ctx.stream);
  }
  rows_backward(ctx, a, m, b);
}

}  // namespace sluice::chunks
