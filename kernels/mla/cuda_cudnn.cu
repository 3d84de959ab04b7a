// kernels/mla/cuda_cudnn.cu -- around cuDNN: keys of whole heads made of their parts, gradients
// taken apart again.
#include "kernels/mla/cuda.cuh"
#include "kernels/mla/cudnn.h"
#include "kernels/mla/cudnn_op.h"

namespace sluice::cuda {
namespace mla_gpu {
namespace {

constexpr int kThreads = 256;
using Direction = CudnnAttention::Direction;
using Data = CudnnAttention::Data;
using Kind = CudnnAttention::Kind;

unsigned blocks_for(int64_t total) {
  return unsigned((total + kThreads - 1) / kThreads);
}

struct RowSizes {
  int64_t of[mla::kCudnnOffsets];
};
__global__ void offsets_kernel(const int* cu, int documents, RowSizes rows, int* lengths,
                               int64_t* offsets) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x;
  if (d > documents) return;
  if (d < documents) lengths[d] = cu[d + 1] - cu[d];
  for (int i = 0; i < mla::kCudnnOffsets; ++i)
    offsets[int64_t(i) * (documents + 1) + d] = cu[d] * rows.of[i];
}

// k[n, h, :] = [kv[n, h, :nope], k_rope[n]]: 8 columns a thread.
__global__ void pack_keys_kernel(Problem p, bf16* k, int64_t total) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int blocks = p.width() / 8, c = int(i % blocks) * 8, h = int(i / blocks % p.H);
  const int64_t n = i / blocks / p.H;
  const bf16* from = c < p.nope ? p.kv[n] + h * (p.nope + p.V) + c : p.k_rope[n] + (c - p.nope);
  *reinterpret_cast<uint4*>(k + i * 8) = *reinterpret_cast<const uint4*>(from);
}

// dkv[n, h, :nope] from dk, and the values' columns from dv, if that is not null.
__global__ void unpack_keys_kernel(Problem p, const bf16* dk, const bf16* dv, Rows dkv, int add,
                                   int64_t total) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int blocks = (p.nope + (dv ? p.V : 0)) / 8, c = int(i % blocks) * 8;
  const int64_t row = i / blocks, n = row / p.H;
  float x[8];
  load(x, c < p.nope ? dk + row * p.width() + c : dv + row * p.V + (c - p.nope));
  put(dkv[n] + row % p.H * (p.nope + p.V) + c, x, add);
}

__device__ void turn_back(const Problem& p, float (&x)[8], int64_t key, int c) {
  if (!p.turn || c < p.nope) return;
  float t[8];
  load(t, p.turn + key * p.rope + (c - p.nope));
#pragma unroll
  for (int e = 0; e < 8; e += 2) turn_pair(x[e], x[e + 1], t[e], -t[e + 1]);
}
// dk_rope[n] = sum over heads, in order, of dk's last columns, turned back.
__global__ void sum_rope_kernel(Problem p, const bf16* dk, Rows dk_rope, int add, int64_t total) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int c = int(i % (p.rope / 8)) * 8;
  const int64_t n = i / (p.rope / 8);
  float sum[8] = {};
  for (int h = 0; h < p.H; ++h) {
    float x[8];
    load(x, dk + (n * p.H + h) * p.width() + p.nope + c);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[e] += x[e];
  }
  turn_back(p, sum, n, p.nope + c);
  put(dk_rope[n] + c, sum, add);
}
__global__ void unpack_queries_kernel(Problem p, const bf16* from, Rows dq, int add,
                                      int64_t total) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int blocks = p.width() / 8, c = int(i % blocks) * 8;
  const int64_t row = i / blocks, n = row / p.H;
  float x[8];
  load(x, from + i * 8);
  turn_back(p, x, p.span[n].last, c);
  put(dq[n] + row % p.H * p.width() + c, x, add);
}

// Where a statistic of row n and head h is: [N, H], or if documents are equally long
// [H / group, N / length, group, length].
struct Statistic {
  int64_t N, H, group, length;  // length 0: [N, H]
  __device__ int64_t at(int64_t n, int64_t h) const {
    if (length == 0) return n * H + h;
    return h / group * group * N + (n / length * group + h % group) * length + n % length;
  }
};
__global__ void gather_lse_kernel(const float* lse, Statistic where, float* to, int64_t total) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < total) to[where.at(i / where.H, i % where.H)] = lse[i];
}
// lse from cuDNN's, or from the largest score and the sum of exp below it; max_logit, if there is
// one, raised to the largest of its head. A CTA has 64 rows, a thread one head.
__global__ void finish_kernel(const float* statistic, const float* sum, Statistic where, float* lse,
                              float* max_logit) {
  const int64_t h = blockIdx.y * blockDim.x + threadIdx.x;
  if (h >= where.H) return;
  float top = -INFINITY;
  for (int64_t n = int64_t(blockIdx.x) * 64; n < min(where.N, int64_t(blockIdx.x + 1) * 64); ++n) {
    const int64_t i = where.at(n, h);
    const float x = statistic[i];
    top = fmaxf(top, x);
    lse[n * where.H + h] = sum ? x + logf(sum[i]) : x;
  }
  if (max_logit) raise(max_logit + h, top);
}

// What both directions begin with: lengths, offsets, whole keys.
template <class Args>
Problem make_ready(const Context& ctx, const Args& a, const mla::CudnnScratch& m,
                   const RowSizes& rows) {
  const Problem p = problem_of(ctx, a, m.turned);
  const int documents = int(a.cu_seqlens_k.dim(0) - 1);
  offsets_kernel<<<blocks_for(documents + 1), kThreads, 0, ctx.stream>>>(
      a.cu_seqlens_k.template as<int32_t>(), documents, rows, m.lengths.as<int32_t>(),
      m.offsets.as<int64_t>());
  SLUICE_LAUNCHED(ctx.stream);
  const int64_t total = m.k.numel() / 8;
  pack_keys_kernel<<<blocks_for(total), kThreads, 0, ctx.stream>>>(p, m.k.as<bf16>(), total);
  SLUICE_LAUNCHED(ctx.stream);
  return p;
}

// Offsets are by tensor, in this order: q, k, v, o, d_o, dq, dv, lse.
template <class Args>
Data common_data(const Args& a, const Problem& p, const mla::CudnnScratch& m) {
  int64_t* at = m.offsets.as<int64_t>();
  const int64_t step = m.offsets.dim(1);
  Data d{};
  d.q = p.q.data, d.k = m.k.data, d.v = p.kv.data + p.nope, d.o = a.o.data, d.lse = a.lse.data;
  d.lengths = m.lengths.data;
  d.q_at = at, d.k_at = at + step, d.v_at = at + 2 * step, d.o_at = at + 3 * step;
  d.do_at = at + 4 * step, d.dq_at = at + 5 * step, d.dv_at = at + 6 * step;
  d.lse_at = at + 7 * step;
  return d;
}
Statistic statistic_of(const mla::Sizes& s, int64_t group) {
  return {s.Nq, s.H, group, mla::equal_lengths(s) ? s.longest : 0};
}
Kind kind_of(const mla::Sizes& s, Direction direction, const RowSizes& r) {
  return {.direction = direction,
          .B = s.documents,
          .longest = s.longest,
          .rows = s.Nq,
          .H = s.H,
          .QK = s.nope + s.rope,
          .V = s.V,
          .q_row = r.of[0],
          .k_row = r.of[1],
          .v_row = r.of[2],
          .o_row = r.of[3],
          .do_row = r.of[4],
          .dq_row = r.of[5],
          .dv_row = r.of[6],
          .lse_row = r.of[7],
          .v_head = s.nope + s.V,
          .dv_head = 0,
          .dense = mla::equal_lengths(s),
          .max = false};
}
CudnnAttention& attention_of(const Context& ctx) {
  SLUICE_CHECK(ctx.attention, "the context has no handle of cuDNN");
  return *ctx.attention;
}

}  // namespace
}  // namespace mla_gpu

using namespace mla_gpu;

void mla_forward_cudnn(const Context& ctx, const MlaForward& a, const mla::CudnnScratch& m) {
  const mla::Sizes s = mla::sizes_of(a);
  SLUICE_CHECK(a.lse.dense() && rows_aligned({a.o}), "lse is strided, or rows of o unaligned");
  const int64_t q_row = a.rope_theta > 0 ? m.turned.q.stride[0] : a.q.stride[0];
  const RowSizes rows{q_row, m.k.stride[0], a.kv.stride[0], a.o.stride[0], 0, 0, 0, s.H};
  const Problem p = make_ready(ctx, a, m, rows);
  Kind kind = kind_of(s, Direction::forward, rows);
  kind.max = bool(a.max_logit);
  Data data = common_data(a, p, m);
  data.max = m.statistic.data, data.sum = m.sum.data;
  if (kind.dense) data.lse = m.statistic.data;
  attention_of(ctx).run(ctx, kind, data, m.workspace);
  if (!kind.dense && !kind.max) return;
  finish_kernel<<<dim3(unsigned((s.Nq + 63) / 64), unsigned((s.H + 31) / 32)), 32, 0, ctx.stream>>>(
      m.statistic.as<float>(), kind.max ? m.sum.as<float>() : nullptr, statistic_of(s, s.H),
      a.lse.as<float>(), kind.max ? a.max_logit.as<float>() : nullptr);
  SLUICE_LAUNCHED(ctx.stream);
}

void mla_backward_cudnn(const Context& ctx, const MlaBackward& a, const mla::CudnnScratch& m) {
  const mla::Sizes s = mla::sizes_of(a);
  SLUICE_CHECK(a.lse.dense() && rows_aligned({a.o, a.d_o, a.dq.t, a.dkv.t, a.dk_rope.t}),
               "lse is strided, or rows of o, d_o or a gradient unaligned");
  const bool rotated = a.rope_theta > 0, own_dq = rotated || a.dq.add, own_dv = a.dkv.add;
  const Tensor& dq = own_dq ? m.dq : a.dq.t;
  const RowSizes rows{rotated ? m.turned.q.stride[0] : a.q.stride[0],
                      m.k.stride[0],
                      a.kv.stride[0],
                      a.o.stride[0],
                      a.d_o.stride[0],
                      dq.stride[0],
                      own_dv ? m.dv.stride[0] : a.dkv.t.stride[0],
                      s.H};
  const Problem p = make_ready(ctx, a, m, rows);
  Data data = common_data(a, p, m);
  data.d_o = a.d_o.data, data.dq = dq.data, data.dk = m.dk.data;
  data.dv = own_dv ? m.dv.data : a.dkv.t.as<bf16>() + s.nope;
  Kind kind =
      kind_of(s, m.heads_in_order > 0 ? Direction::backward_in_order : Direction::backward, rows);
  kind.dv_head = own_dv ? s.V : s.nope + s.V;
  kind.H = m.heads_in_order > 0 ? m.heads_in_order : s.H;
  if (kind.dense) {
    const int64_t total = s.Nq * s.H;
    gather_lse_kernel<<<blocks_for(total), kThreads, 0, ctx.stream>>>(
        a.lse.as<float>(), statistic_of(s, kind.H), m.statistic.as<float>(), total);
    SLUICE_LAUNCHED(ctx.stream);
  }
  for (int64_t h = 0; h < s.H; h += kind.H) {
    Data part = data;
    const auto move = [h](void*& x, int64_t width) { x = static_cast<bf16*>(x) + h * width; };
    move(part.q, kind.QK), move(part.k, kind.QK), move(part.v, kind.v_head);
    move(part.o, kind.V), move(part.d_o, kind.V), move(part.dq, kind.QK), move(part.dk, kind.QK);
    move(part.dv, kind.dv_head);
    part.lse = kind.dense ? m.statistic.as<float>() + h * s.Nq : a.lse.as<float>() + h;
    attention_of(ctx).run(ctx, kind, part, m.workspace);
  }
  const int64_t keys = s.Nk * s.H * (s.nope + (own_dv ? s.V : 0)) / 8;
  if (keys > 0) {
    unpack_keys_kernel<<<blocks_for(keys), kThreads, 0, ctx.stream>>>(
        p, m.dk.as<bf16>(), own_dv ? m.dv.as<bf16>() : nullptr, rows_of(a.dkv.t), a.dkv.add, keys);
    SLUICE_LAUNCHED(ctx.stream);
  }
  if (const int64_t shared = s.Nk * s.rope / 8; shared > 0) {
    sum_rope_kernel<<<blocks_for(shared), kThreads, 0, ctx.stream>>>(
        p, m.dk.as<bf16>(), rows_of(a.dk_rope.t), a.dk_rope.add, shared);
    SLUICE_LAUNCHED(ctx.stream);
  }
  if (!own_dq) return;
  const int64_t queries = m.dq.numel() / 8;
  unpack_queries_kernel<<<blocks_for(queries), kThreads, 0, ctx.stream>>>(
      p, m.dq.as<bf16>(), rows_of(a.dq.t), a.dq.add, queries);
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
