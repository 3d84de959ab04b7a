// kernels/linear_cross_entropy/linear_cross_entropy.cpp -- the contract, checked once for every
// back end.
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <algorithm>

#include "kernels/gemm/cuda_gemm.h"

namespace sluice {

#define SLUICE_BACKEND(backend)                                                               \
  namespace backend {                                                                         \
  void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a,   \
                                    Tensor logits, Tensor nll);                               \
  void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a, \
                                     Tensor logits);                                          \
  }
SLUICE_BACKEND(cpu)
SLUICE_BACKEND(reference)
#undef SLUICE_BACKEND
#ifdef SLUICE_CUDA_BUILD
namespace cuda {
void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a,
                                  Tensor logits, Tensor gradient, Tensor nll, Tensor workspace);
void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a,
                                   Tensor logits, Tensor gradient, Tensor workspace);
}  // namespace cuda
#endif

template <class Args>
static void check_inputs(const Context& ctx, const Args& a) {
  const int64_t N = a.h.dim(0), D = a.h.dim(1), V = a.w.dim(0);
  check_shape(a.h, "h", {N, D}, a.h.dtype, ctx.device);
  check_shape(a.w, "w", {V, D}, a.h);
  check_shape(a.targets, "targets", {N}, DType::i32, ctx.device);
  check_shape(a.loss_scale, "loss_scale", {1}, DType::f64, ctx.device);
  check_shape(a.lse, "lse", {N}, sum_type(a.h.dtype), ctx.device);
  SLUICE_CHECK(a.z_loss >= 0, "z_loss is ", a.z_loss);
  SLUICE_CHECK(V >= 1, "w is ", to_string(a.w), ": no vocabulary");
  SLUICE_CHECK(a.w.dense(), "w is ", to_string(a.w), ", its rows ", a.w.stride[0], " apart");
  if (ctx.mode == Mode::plan || ctx.device != Device::cpu) return;
  for (int64_t n = 0; n < N; ++n) {
    const int32_t t = a.targets.template as<int32_t>()[n];
    SLUICE_CHECK(t == kIgnoreIndex || (t >= 0 && t < V), "target ", t, " at row ", n,
                 ", expected 0 to ", V - 1, " or ", kIgnoreIndex);
  }
}

static ArenaTensor logits_block(const Context& ctx, DType dtype, const Tensor& h, const Tensor& w) {
  const int64_t rows = ctx.device == Device::cuda ? kCrossEntropyCudaRows : kCrossEntropyRows;
  return scratch(ctx, dtype, {std::min(h.dim(0), rows), w.dim(0)});
}

// Gradients of the logits in bf16; on the CPU they take the place of the logits.
static ArenaTensor gradient_block(const Context& ctx, const Tensor& h, const Tensor& w) {
  if (ctx.device != Device::cuda) return {};
  return logits_block(ctx, h.dtype, h, w);
}

template <class Args>
static void check_gradients(const Args& a, const Tensor& dh) {
  check_shape(dh, "dh", {a.h.dim(0), a.h.dim(1)}, a.h);
  check_shape(a.dw.t, "dw", {a.w.dim(0), a.w.dim(1)}, a.lse);
  SLUICE_CHECK(a.dw.t.dense(), "dw is ", to_string(a.dw.t), ", its rows ", a.dw.t.stride[0],
               " apart");
}

// Where one pass does both: on the CPU one after the other.
static void forward_on_cpu(const Context& ctx, const LinearCrossEntropyForward& a,
                           const Tensor& logits, const Tensor& nll) {
  SLUICE_DISPATCH_CPU(linear_cross_entropy_forward, ctx, a, logits, nll);
  if (!a.dh) return;
  double one = 1;
  const LinearCrossEntropyBackward b{.h = a.h,
                                     .w = a.w,
                                     .targets = a.targets,
                                     .loss_scale = a.loss_scale,
                                     .lse = a.lse,
                                     .dloss = make_tensor(&one, DType::f64, Device::cpu, {1}),
                                     .dh = {a.dh},
                                     .dw = a.dw,
                                     .z_loss = a.z_loss};
  SLUICE_DISPATCH_CPU(linear_cross_entropy_backward, ctx, b, logits);
}

void linear_cross_entropy_forward(const Context& ctx, const LinearCrossEntropyForward& a) {
  check_inputs(ctx, a);
  check_shape(a.loss, "loss", {1}, DType::f64, ctx.device);
  if (a.terms) check_shape(a.terms, "terms", {2}, DType::f64, ctx.device);
  if (a.nll) check_shape(a.nll, "nll", {a.h.dim(0)}, a.lse);
  if (a.predicted) check_shape(a.predicted, "predicted", {a.h.dim(0)}, DType::i32, ctx.device);
  SLUICE_CHECK(bool(a.dh) == bool(a.dw), "dh is ", to_string(a.dh), ", dw ", to_string(a.dw.t));
  if (a.dh) check_gradients(a, a.dh);
  const ArenaTensor logits = logits_block(ctx, a.lse.dtype, a.h, a.w),
                    nll = scratch(ctx, a.lse.dtype, {a.h.dim(0)}), workspace = gemm_workspace(ctx);
  ArenaTensor gradient;
  if (a.dh) gradient = gradient_block(ctx, a.h, a.w);
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda)
    return cuda::linear_cross_entropy_forward(ctx, a, logits, gradient, a.nll ? a.nll : nll.view(),
                                              workspace);
#endif
  forward_on_cpu(ctx, a, logits, a.nll ? a.nll : nll.view());
}

void linear_cross_entropy_backward(const Context& ctx, const LinearCrossEntropyBackward& a) {
  check_inputs(ctx, a);
  check_shape(a.dloss, "dloss", {1}, DType::f64, ctx.device);
  check_gradients(a, a.dh.t);
  const ArenaTensor logits = logits_block(ctx, a.lse.dtype, a.h, a.w),
                    workspace = gemm_workspace(ctx), gradient = gradient_block(ctx, a.h, a.w);
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda)
    return cuda::linear_cross_entropy_backward(ctx, a, logits, gradient, workspace);
#endif
  SLUICE_DISPATCH_CPU(linear_cross_entropy_backward, ctx, a, logits.view());
}

}  // namespace sluice
