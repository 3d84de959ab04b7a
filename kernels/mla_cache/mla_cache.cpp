// kernels/mla_cache/mla_cache.cpp -- the contracts, checked once for every back end.
#include "kernels/mla_cache/mla_cache.h"

#include "kernels/gemm/cuda_gemm.h"
#include "kernels/mla_cache/cuda_sizes.h"

namespace sluice {

namespace cpu {
void latent_append(const Context& ctx, const LatentAppend& a);
void mla_prefill(const Context& ctx, const MlaCached& a);
void mla_decode(const Context& ctx, const MlaCached& a, Tensor partial);
}  // namespace cpu
namespace cuda {
void latent_append(const Context& ctx, const LatentAppend& a);
void mla_prefill(const Context& ctx, const MlaCached& a, const mla_cache_gpu::PrefillScratch& m,
                 const Tensor& workspace);
void mla_decode(const Context& ctx, const MlaCached& a, const mla_cache_gpu::DecodeScratch& m);
}  // namespace cuda
namespace reference {
void latent_append(const Context& ctx, const LatentAppend& a);
void mla_prefill(const Context& ctx, const MlaCached& a);
void mla_decode(const Context& ctx, const MlaCached& a, Tensor partial);
}  // namespace reference

// Slots and their lengths; `most` new tokens are allowed in one.
template <class Args>
static void check_slots(const Context& ctx, const Args& a, int64_t N, int64_t most) {
  const int64_t S = a.latents.dim(0), T = a.latents.dim(1);
  check_cu_seqlens(ctx, a.cu_seqlens, N);
  check_shape(a.cu_seqlens, "cu_seqlens", {S + 1}, DType::i32, ctx.device);
  check_shape(a.past, "past", {S}, DType::i32, ctx.device);
  if (ctx.mode == Mode::plan || ctx.device != Device::cpu) return;
  for (int64_t s = 0; s < S; ++s) {
    const mla_cache::Rows rows = mla_cache::rows_of(a, s);
    SLUICE_CHECK(rows.past >= 0 && rows.past + rows.count <= T, "slot ", s, " holds ", rows.past,
                 " tokens and gets ", rows.count, "; it has room for ", T);
    SLUICE_CHECK(rows.count <= most, "slot ", s, " gets ", rows.count, " tokens, at most ", most);
  }
}

void latent_append(const Context& ctx, const LatentAppend& a) {
  const int64_t N = a.c.dim(0), r = a.c.dim(1), rope = a.k_rope.dim(1);
  check_shape(a.c, "c", {N, r}, a.c.dtype, ctx.device);
  check_shape(a.k_rope, "k_rope", {N, rope}, a.c);
  SLUICE_CHECK(a.latents.rank == 3, "latents is ", to_string(a.latents));
  check_shape(a.latents, "latents", {a.latents.dim(0), a.latents.dim(1), r + rope}, a.c);
  SLUICE_CHECK(a.rope_theta == 0 || (a.rope_theta > 1 && rope % 2 == 0), "rope_theta is ",
               a.rope_theta, " and rope ", rope);
  check_slots(ctx, a, N, N);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(latent_append, ctx, a);
}

static void check_inputs(const Context& ctx, const MlaCached& a, int64_t most) {
  SLUICE_CHECK(a.q.rank == 3 && a.latents.rank == 3 && a.w_kv_b.rank == 2 && a.o.rank == 3, "q is ",
               to_string(a.q), ", latents ", to_string(a.latents), ", w_kv_b ", to_string(a.w_kv_b),
               ", o ", to_string(a.o));
  const mla_cache::Sizes s = mla_cache::sizes_of(a);
  SLUICE_CHECK(s.H > 0 && s.nope > 0 && s.rope > 0 && s.V > 0, "q is ", to_string(a.q),
               ", latents ", to_string(a.latents), ", w_kv_b ", to_string(a.w_kv_b), ", o ",
               to_string(a.o), ": no split into latent, nope, rope and value columns");
  check_shape(a.q, "q", {s.N, s.H, s.nope + s.rope}, a.q.dtype, ctx.device);
  check_shape(a.latents, "latents", {s.S, s.T, s.r + s.rope}, a.q);
  check_shape(a.w_kv_b, "w_kv_b", {s.H * (s.nope + s.V), s.r}, a.q);
  check_shape(a.o, "o", {s.N, s.H, s.V}, a.q);
  SLUICE_CHECK(a.rope_theta == 0 || (a.rope_theta > 1 && s.rope % 2 == 0), "rope_theta is ",
               a.rope_theta, " and rope ", s.rope);
  check_slots(ctx, a, s.N, most);
}

static void prefill_on_cuda([[maybe_unused]] const Context& ctx,
                            [[maybe_unused]] const MlaCached& a) {
#ifdef SLUICE_CUDA_BUILD
  namespace gpu = cuda::mla_cache_gpu;
  const mla_cache::Sizes s = mla_cache::sizes_of(a);
  const int64_t width = s.nope + s.rope, rotated = a.rope_theta > 0 ? s.N : 0;
  const int64_t waiting = s.T > gpu::kBlock ? s.N : 0;  // rows that a block leaves to the next
  const ArenaTensor workspace = gemm_workspace(ctx);
  const ArenaTensor kv =
      scratch(ctx, DType::bf16, {std::min(s.T, gpu::kBlock), s.H * (s.nope + s.V)});
  const ArenaTensor q = scratch(ctx, DType::bf16, {rotated, s.H * width});
  const ArenaTensor sums = scratch(ctx, DType::f32, {waiting, s.H, s.V});
  const ArenaTensor stats = scratch(ctx, DType::f32, {waiting, s.H, 2});
  if (ctx.mode == Mode::plan) return;
  SLUICE_CHECK(
      int64_t(a.on_host.cu_seqlens.size()) == s.S + 1 && int64_t(a.on_host.past.size()) == s.S,
      "a prefill of ", s.S, " slots needs their lengths on the host, got ", a.on_host.past.size());
  cuda::mla_prefill(ctx, a, {kv, q, sums, stats}, workspace);
#else
  SLUICE_CHECK(false, "this build has no CUDA");
#endif
}

void mla_prefill(const Context& ctx, const MlaCached& a) {
  check_inputs(ctx, a, a.q.dim(0));
  if (ctx.device == Device::cuda) return prefill_on_cuda(ctx, a);
  if (ctx.mode == Mode::plan) return;
  ctx.mode == Mode::reference ? reference::mla_prefill(ctx, a) : cpu::mla_prefill(ctx, a);
}

static void decode_on_cuda([[maybe_unused]] const Context& ctx,
                           [[maybe_unused]] const MlaCached& a) {
#ifdef SLUICE_CUDA_BUILD
  const mla_cache::Sizes s = mla_cache::sizes_of(a);
  const int64_t splits = cuda::mla_cache_gpu::most_splits(s.S, s.T);
  const ArenaTensor q = scratch(ctx, DType::bf16, {s.N, s.H, s.r + s.rope});
  const ArenaTensor sums = scratch(ctx, DType::f32, {s.N, splits, s.H, s.r});
  const ArenaTensor stats = scratch(ctx, DType::f32, {s.N, splits, s.H, 2});
  const ArenaTensor o = scratch(ctx, DType::bf16, {s.N, s.H, s.r});
  if (ctx.mode != Mode::plan) cuda::mla_decode(ctx, a, {q, sums, stats, o});
#else
  SLUICE_CHECK(false, "this build has no CUDA");
#endif
}

void mla_decode(const Context& ctx, const MlaCached& a) {
  check_inputs(ctx, a, 1);
  if (ctx.device == Device::cuda) return decode_on_cuda(ctx, a);
  const mla_cache::Sizes s = mla_cache::sizes_of(a);
  // Of every split: its part of sum_j p_j c_j, its largest score, and the sum of its weights.
  const ArenaTensor partial = scratch(ctx, a.q.dtype, {s.N * s.splits(), s.H, s.r + 2});
  if (ctx.mode == Mode::plan) return;
  ctx.mode == Mode::reference ? reference::mla_decode(ctx, a, partial.view())
                              : cpu::mla_decode(ctx, a, partial.view());
}

}  // namespace sluice
