// kernels/chunks/cuda_general_backward.cu -- the state's gradient from a document's last chunk to
// its first; cotangents of a chunk's rows; then through norms and gates by token.
#include "kernels/base/cuda_check.h"
#include "kernels/chunks/cuda_general.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/sum_parts.cuh"

namespace sluice::chunks {

namespace general {

namespace {

constexpr int64_t kSumRows = 256;  // tokens whose gradients of parameters are summed first

// a, r and c are the cotangents of q, of k as a reader and of w = b k, after the norms.
struct Scratch {
  Scratch(void* memory, const GeneralSizes& s) {
    const int64_t rows = s.N * s.HV, units = s.chunks() * s.HV;
    Pieces from{static_cast<char*>(memory)};
    from.take(X, units * kC * s.V), from.take(D, units * s.K * s.V);
    from.take(a, rows * s.K), from.take(r, rows * s.K), from.take(c, rows * s.K);
    from.take(dg, rows * s.K), from.take(dz, rows * s.G), from.take(dA, rows);
    from.take(parts, (s.N + kSumRows - 1) / kSumRows * s.HV * s.G);
    bytes = from.p - static_cast<char*>(memory);
  }
  float* X;          // by unit [16, V] dL/dV
  float* D;          // by unit [K, V] dL/dS' of the state that leaves
  float *a, *r, *c;  // [N, HV, K]
  float* dg;         // [N, HV, K] of the log decay
  float* dz;         // [N, HV, G] of the gate's logits
  float* dA;         // [N, HV] of A_log
  float* parts;      // [N / 256, HV * G]
  int64_t bytes;
};

__device__ void chunk_backward(const GeneralBackward& a, const GeneralMemory& m, const Scratch& b,
                               const ScanMemory& s, ChunkAt at, int64_t unit, int hv, int v0) {
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
    scan_backward_kernel(GeneralBackward a, GeneralMemory m, Scratch b) {
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

// A channel's part of the pairs' terms: a, r and c get theirs, dg that of all tokens between.
__device__ void through_pairs(const float* N, const float* M, const float (&g)[kC],
                              const float (&q)[kC], const float (&k)[kC], const float (&w)[kC],
                              float (&a)[kC], float (&r)[kC], float (&c)[kC], float (&dg)[kC]) {
#pragma unroll
  for (int j = 0; j < kC; ++j) {
    a[j] += N[j * kC + j] * w[j];
    c[j] += N[j * kC + j] * q[j];
    float sum = 0, z[kC];
#pragma unroll
    for (int i = j + 1; i < kC; ++i) {
      sum += g[i];
      const float e = expf(sum), n = N[i * kC + j] * e, m = M[i * kC + j] * e;
      a[i] += n * w[j], r[i] += m * w[j];
      const float reads = n * q[i] + m * k[i];
      c[j] += reads;
      z[i] = reads * w[j];
    }
    sum = 0;
#pragma unroll
    for (int i = kC - 1; i > j; --i) {
      sum += z[i];
      dg[i] += sum;
    }
  }
}

// a, r, c and dg of a chunk and value head, a thread a channel. Shared: dO, X, E [V, 16], then
// N = dO E^T and M = -X E^T [16, 16].
__global__ void __launch_bounds__(kThreads)
    gradients_kernel(GeneralBackward t, GeneralMemory mem, Scratch b) {
  extern __shared__ __align__(16) float memory[];
  const int K = int(t.size.K), V = int(t.size.V), HV = int(t.size.HV);
  const int64_t unit = blockIdx.x;
  const int hv = int(unit % HV);
  const ChunkAt at = mem.chunk[unit / HV];
  if (at.C == 0) return;
  float *d_o = memory, *X = d_o + V * kC, *E = X + V * kC, *N = E + V * kC, *M = N + kC * kC;
  for (int e = int(threadIdx.x); e < V * kC; e += kThreads) {
    const int i = e / V, v = e % V;
    d_o[v * kC + i] = i < at.C ? __bfloat162float(t.d_o[at.n0 + i][hv * V + v]) : 0;
    X[v * kC + i] = b.X[unit * kC * V + e];
    E[v * kC + i] = mem.E[unit * kC * V + e];
  }
  __syncthreads();
  float n = 0, m = 0;
  for (int v = 0; v < V; ++v) {
    const float e = E[v * kC + threadIdx.x % kC];
    n += d_o[v * kC + threadIdx.x / kC] * e;
    m -= X[v * kC + threadIdx.x / kC] * e;
  }
  N[threadIdx.x] = n, M[threadIdx.x] = t.gate.delta_rule ? m : 0;
  __syncthreads();
  const int d = int(threadIdx.x);
  if (d >= K) return;

  float a[kC] = {}, r[kC] = {}, c[kC] = {}, across = 0;
  for (int v = 0; v < V; ++v) {
    const float S = mem.S[(unit * K + d) * V + v], D = b.D[(unit * K + d) * V + v];
    across += S * D;
#pragma unroll
    for (int i = 0; i < kC; ++i) {
      a[i] += S * d_o[v * kC + i];
      r[i] -= S * X[v * kC + i];
      c[i] += D * E[v * kC + i];
    }
  }
  float g[kC], q[kC], k[kC], w[kC], dg[kC];
  float sum = 0, terms = 0;
#pragma unroll
  for (int i = 0; i < kC; ++i) {
    const int64_t row = (at.n0 + min(i, at.C - 1)) * int64_t(HV) + hv;
    const bool there = i < at.C;
    g[i] = there ? mem.g[row * t.size.G + (t.size.G == 1 ? 0 : d)] : 0;
    q[i] = there ? mem.q[row * K + d] : 0;
    k[i] = there ? mem.k[row * K + d] : 0;
    w[i] = k[i] * mem.b[row];
    sum += g[i];
    const float e = expf(sum);
    a[i] *= e;
    r[i] *= t.gate.delta_rule ? e : 0;
  }
  across *= expf(sum);
  sum = 0;
#pragma unroll
  for (int i = kC - 1; i >= 0; --i) {  // tokens >= i read the state that entered
    c[i] *= expf(sum);
    sum += g[i];
    terms += q[i] * a[i] + k[i] * r[i];
    dg[i] = terms + across;
  }
  terms = 0;
#pragma unroll
  for (int i = 0; i < kC; ++i) {  // tokens < i wrote to the one that leaves
    dg[i] += terms;
    terms += w[i] * c[i];
  }
  through_pairs(N, M, g, q, k, w, a, r, c, dg);
#pragma unroll
  for (int i = 0; i < kC; ++i) {
    if (i >= at.C) continue;
    const int64_t e = ((at.n0 + i) * int64_t(HV) + hv) * K + d;
    b.a[e] = a[i], b.r[e] = r[i], b.c[e] = c[i], b.dg[e] = dg[i];
  }
}

// The logit's gradient from that of the log decay, and of the step where that is what is written.
__device__ float logit_gradient(const GeneralGate& gate, float A, float y, float dg, float db,
                                float& dA) {
  if (gate.bounded) {
    const float p = logistic(A * y), x = dg * gate.lower_bound * p * (1 - p);
    dA += x == 0 ? 0 : x * A * y;  // not 0 * infinity
    return A * x;
  }
  const float step = log_1_plus_exp(y);
  dA += dg == 0 ? 0 : -dg * A * step;
  return (gate.delta_rule ? -A * dg : db - A * dg) * logistic(y);
}

// Gates of one token and value head, by a warp.
__device__ void gate_backward(const GeneralBackward& t, const Scratch& b, int64_t n, int hv,
                              float db, float strength) {
  const GeneralSizes& s = t.size;
  const int64_t row = n * s.HV + hv;
  const int lane = int(threadIdx.x) % 32;
  const float A = expf(t.gate.A_log[hv]);
  float dA = 0, all = 0;
  if (s.G == 1) {
    for (int d = lane; d < s.K; d += 32) all += b.dg[row * s.K + d];
    all = warp_sum(all);
  }
  for (int d = lane; d < s.G; d += 32) {
    const float y = __bfloat162float(t.z[n][hv * s.G + d]) + t.gate.bias[hv * s.G + d];
    float dy[1] = {logit_gradient(t.gate, A, y, s.G == 1 ? all : b.dg[row * s.K + d], db, dA)};
    b.dz[row * s.G + d] = dy[0];
    put(t.dz[n] + hv * s.G + d, dy, t.add_dz);
  }
  dA = warp_sum(dA);
  if (lane != 0) return;
  b.dA[row] = dA;
  if (!t.gate.delta_rule) return;
  float dlogit[1] = {db * strength * (1 - strength / t.gate.beta_max)};
  put(t.dbeta[n] + hv, dlogit, t.add_dbeta);
}

// dx = r (dxn - xn (xn . dxn)), xn of length `length`: a row by a warp.
__device__ void norm_backward(const bf16* x, const float* xn, const float (&dxn)[8], float eps,
                              float length, int K, bf16* out, int add) {
  const int lane = int(threadIdx.x) % 32;
  float xx = 0, along = 0;
#pragma unroll
  for (int e = 0; e < 8; ++e)
    if (const int d = lane + 32 * e; d < K) {
      const float y = __bfloat162float(x[d]);
      xx += y * y, along += xn[d] * dxn[e];
    }
  const float r = length / sqrtf(warp_sum(xx) + eps);
  along = warp_sum(along) / (length * length);
#pragma unroll
  for (int e = 0; e < 8; ++e)
    if (const int d = lane + 32 * e; d < K) {
      float y[1] = {r * (dxn[e] - xn[d] * along)};
      put(out + d, y, add);
    }
}

// A token and query head, by a warp: its value heads' cotangents, in order.
__global__ void __launch_bounds__(kThreads)
    tokens_kernel(GeneralBackward t, GeneralMemory m, Scratch b) {
  const GeneralSizes& s = t.size;
  const int64_t unit = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (unit >= s.N * s.H) return;
  const int64_t n = unit / s.H;
  const int h = int(unit % s.H), group = int(s.HV / s.H), lane = int(threadIdx.x) % 32;
  const int K = int(s.K);
  float dq[8] = {}, dk[8] = {};
  for (int hv = h * group; hv < (h + 1) * group; ++hv) {
    const int64_t row = n * s.HV + hv;
    const float strength = m.b[row];
    float db = 0;
#pragma unroll
    for (int e = 0; e < 8; ++e)
      if (const int d = lane + 32 * e; d < K) {
        const float c = b.c[row * K + d];
        dq[e] += b.a[row * K + d];
        dk[e] += b.r[row * K + d] + strength * c;
        db += m.k[row * K + d] * c;
      }
    gate_backward(t, b, n, hv, warp_sum(db), strength);
  }
  const int64_t first = (n * s.HV + h * group) * K;
  norm_backward(t.q[n] + h * K, m.q + first, dq, t.eps, rsqrtf(float(K)), K, t.dq[n] + h * K,
                t.add_dq);
  norm_backward(t.k[n] + h * K, m.k + first, dk, t.eps, 1, K, t.dk[n] + h * K, t.add_dk);
}

// parts [N / 256, C]: sums over 256 rows each of x [N, C].
__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(const float* x, int64_t N, int64_t C, float* parts) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x, begin = blockIdx.y * kSumRows;
  if (c >= C) return;
  float sum = 0;
  for (int64_t n = begin; n < min(begin + kSumRows, N); ++n) sum += x[n * C + c];
  parts[blockIdx.y * C + c] = sum;
}

void sum_rows(const Context& ctx, float* x, int64_t N, int64_t C, float* parts, const Grad& out) {
  const int64_t blocks = (N + kSumRows - 1) / kSumRows;
  if (blocks > 0) {
    sum_rows_kernel<<<dim3(unsigned((C + kThreads - 1) / kThreads), unsigned(blocks)), kThreads, 0,
                      ctx.stream>>>(x, N, C, parts);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_parts(ctx, make_tensor(parts, DType::f32, Device::cuda, {blocks, C}),
            {out.t.reshape({C}), out.add});
}

}  // namespace

}  // namespace general

using namespace general;

int64_t general_backward_bytes(const GeneralSizes& s) {
  return Scratch(nullptr, s).bytes;
}

void general_backward(const Context& ctx, const GeneralBackward& a, void* kept, void* scratch) {
  const GeneralSizes& s = a.size;
  const GeneralMemory m(kept, s, true);
  const Scratch b(scratch, s);
  if (s.documents > 0) {
    const int64_t tiles = (s.V + kVTile - 1) / kVTile;
    allow_shared(scan_backward_kernel, ScanMemory::bytes(kGeneralMaxDim));
    scan_backward_kernel<<<unsigned(s.documents * s.HV * tiles), kThreads, ScanMemory::bytes(s.K),
                           ctx.stream>>>(a, m, b);
    SLUICE_LAUNCHED(ctx.stream);
    const auto shared = [](int64_t V) { return size_t((3 * V + 2 * kC) * kC) * sizeof(float); };
    allow_shared(gradients_kernel, shared(kGeneralMaxDim));
    gradients_kernel<<<unsigned(s.chunks() * s.HV), kThreads, shared(s.V), ctx.stream>>>(a, m, b);
    SLUICE_LAUNCHED(ctx.stream);
  }
  if (s.N > 0) {
    constexpr int kRows = kThreads / 32;
    tokens_kernel<<<unsigned((s.N * s.H + kRows - 1) / kRows), kThreads, 0, ctx.stream>>>(a, m, b);
    SLUICE_LAUNCHED(ctx.stream);
  }
  sum_rows(ctx, b.dz, s.N, s.HV * s.G, b.parts, a.ddt_bias);
  sum_rows(ctx, b.dA, s.N, s.HV, b.parts, a.dA_log);
}

}  // namespace sluice::chunks
