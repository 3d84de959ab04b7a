// kernels/mla/cudnn_op.cpp -- the op by cuDNN: the memory that it takes, planned without a device.
#include "kernels/mla/cudnn_op.h"

namespace sluice {

#ifdef SLUICE_CUDNN
namespace cuda {
void mla_forward_cudnn(const Context& ctx, const MlaForward& a, const mla::CudnnScratch& memory);
void mla_backward_cudnn(const Context& ctx, const MlaBackward& a, const mla::CudnnScratch& memory);
}  // namespace cuda
#endif

namespace mla {
namespace {

// Measured on a Hopper GPU with cuDNN 9.14: descriptors of each document, and what follows. That
// no call asks for more is checked when it is made. (With room to spare: 8 KiB were enough.)
constexpr int64_t kFixed = int64_t(1) << 20;
int64_t forward_workspace(const Sizes& s) {
  return kFixed + 256 * s.documents;
}
// In f32: a number a query and head, and the sums of dq; or each pair's ds in bf16.
int64_t backward_workspace(const Sizes& s, int64_t heads_in_order) {
  const int64_t fixed = kFixed + 512 * s.documents;
  if (heads_in_order > 0) return fixed + heads_in_order * (in_order_bytes(s) + s.Nq * 4);
  return fixed + s.Nq * s.H * (s.nope + s.rope + 1) * 4;
}

[[maybe_unused]] void refuse() {
  throw Error(
      "attention on CUDA: this build found no headers of cuDNN's frontend; launch/setup.sh --cuda "
      "fetches them, then build again");
}

}  // namespace

void forward_by_cudnn(const Context& ctx, const MlaForward& a) {
  const Sizes s = sizes_of(a);
  const int64_t rotated = a.rope_theta > 0 ? s.Nq : 0, counted = a.max_logit ? s.Nq : 0;
  const ArenaTensor span = scratch(ctx, DType::i32, {s.Nq, 2}),
                    turn = scratch(ctx, DType::f32, {rotated, s.rope}),
                    q = scratch(ctx, a.q.dtype, {rotated, s.H, s.nope + s.rope}),
                    k_rope = scratch(ctx, a.q.dtype, {rotated, s.rope}),
                    k = scratch(ctx, a.q.dtype, {s.Nk, s.H, s.nope + s.rope}),
                    lengths = scratch(ctx, DType::i32, {s.documents}),
                    offsets = scratch(ctx, DType::i64, {kCudnnOffsets, s.documents + 1}),
                    statistic = scratch(ctx, DType::f32, {equal_lengths(s) ? s.Nq : counted, s.H}),
                    sum = scratch(ctx, DType::f32, {counted, s.H}),
                    workspace = scratch(ctx, DType::u8, {forward_workspace(s)}, Purpose::workspace);
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDNN
  cuda::mla_forward_cudnn(ctx, a,
                          {.turned = {.span = span, .turn = turn, .q = q, .k_rope = k_rope},
                           .k = k,
                           .lengths = lengths,
                           .offsets = offsets,
                           .statistic = statistic,
                           .sum = sum,
                           .workspace = workspace});
#else
  refuse();
#endif
}

void backward_by_cudnn(const Context& ctx, const MlaBackward& a, int64_t heads_in_order) {
  const Sizes s = sizes_of(a);
  const int64_t rotated = a.rope_theta > 0 ? s.Nq : 0, width = s.nope + s.rope;
  const ArenaTensor span = scratch(ctx, DType::i32, {s.Nq, 2}),
                    turn = scratch(ctx, DType::f32, {rotated, s.rope}),
                    q = scratch(ctx, a.q.dtype, {rotated, s.H, width}),
                    k_rope = scratch(ctx, a.q.dtype, {rotated, s.rope}),
                    k = scratch(ctx, a.q.dtype, {s.Nk, s.H, width}),
                    lengths = scratch(ctx, DType::i32, {s.documents}),
                    offsets = scratch(ctx, DType::i64, {kCudnnOffsets, s.documents + 1}),
                    statistic = scratch(ctx, DType::f32, {equal_lengths(s) ? s.Nq : 0, s.H}),
                    dq = scratch(ctx, a.q.dtype, {a.dq.add ? s.Nq : rotated, s.H, width}),
                    dk = scratch(ctx, a.q.dtype, {s.Nk, s.H, width}),
                    dv = scratch(ctx, a.q.dtype, {a.dkv.add ? s.Nk : 0, s.H, s.V}),
                    workspace = scratch(ctx, DType::u8, {backward_workspace(s, heads_in_order)},
                                        Purpose::workspace);
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDNN
  cuda::mla_backward_cudnn(ctx, a,
                           {.turned = {.span = span, .turn = turn, .q = q, .k_rope = k_rope},
                            .k = k,
                            .lengths = lengths,
                            .offsets = offsets,
                            .statistic = statistic,
                            .workspace = workspace,
                            .dq = dq,
                            .dk = dk,
                            .dv = dv,
                            .heads_in_order = heads_in_order});
#else
  refuse();
#endif
}

}  // namespace mla
}  // namespace sluice
