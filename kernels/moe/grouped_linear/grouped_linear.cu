// kernels/moe/grouped_linear/grouped_linear.cu -- which path a product takes: by the operands'
// strides and alignment, never by the choice of experts.
#include "kernels/device/vec.cuh"
#include "kernels/moe/grouped_linear/cuda.cuh"
#include "kernels/tensor/fill.h"

namespace sluice::cuda {

template <Product product>
static void multiply(const Context& ctx, const Tensor& a, const Tensor& b, const GroupedArgs& args,
                     const Tensor& out) {
  if (rows_aligned({a, b, out}) && args.D % 8 == 0 && args.F % 8 == 0)
    grouped_wgmma<product>(ctx, a, b, args);
  else
    grouped_general<product>(ctx, a, b, args);
}

void grouped_linear_forward(const Context& ctx, const GroupedLinearForward& a) {
  const int64_t E = a.w.dim(0), F = a.w.dim(1), D = a.w.dim(2);
  if (a.x.dim(0) == 0) return;
  const GroupedArgs args{a.offsets.as<int32_t>(), int(E), int(D), int(F), a.y.data,
                         a.y.stride[0],           false};
  multiply<Product::forward>(ctx, a.x, a.w, args, a.y);
}

void grouped_linear_backward(const Context& ctx, const GroupedLinearBackward& a) {
  const int64_t E = a.w.dim(0), F = a.w.dim(1), D = a.w.dim(2);
  if (a.x.dim(0) == 0) {
    if (!a.dw.add) zero(ctx, a.dw.t.reshape({E * F, D}));
    return;
  }
  GroupedArgs args{a.offsets.as<int32_t>(), int(E), int(D), int(F), a.dw.t.data, D, a.dw.add};
  multiply<Product::weight>(ctx, a.dy, a.x, args, a.dw.t);
  args.out = a.dx.t.data, args.stride = a.dx.t.stride[0], args.add = a.dx.add;
  multiply<Product::data>(ctx, a.dy, a.w, args, a.dx.t);
}

}  // namespace sluice::cuda
