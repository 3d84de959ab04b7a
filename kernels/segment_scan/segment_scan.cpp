// kernels/segment_scan/segment_scan.cpp -- the contract, checked once for every back end.
#include "kernels/segment_scan/segment_scan.h"

#include "kernels/tensor/fill.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice {

namespace cuda {
void segment_scan(const Context& ctx, const SegmentScan& a);
void set_identities(const Context& ctx, const Tensor& t);
}  // namespace cuda
namespace cpu {
void segment_scan(const Context& ctx, const SegmentScan& a, const Tensor& next);
}
namespace reference {
void segment_scan(const Context& ctx, const SegmentScan& a, const Tensor& next);
}

void segment_scan(const Context& ctx, const SegmentScan& a) {
  SLUICE_CHECK(a.state.rank == 3 && a.state.dense() && a.operators.rank == 2 && a.operators.dense(),
               "state is ", to_string(a.state), ", operators ", to_string(a.operators));
  const int64_t HV = a.state.dim(0), K = a.state.dim(1), V = a.state.dim(2);
  check_shape(a.operators, "operators", {a.operators.dim(0), HV * K * (V + K)}, a.state);
  SLUICE_CHECK(a.first >= 0 && a.count >= 0 && a.first + a.count <= a.operators.dim(0), "segments ",
               a.first, " to ", a.first + a.count, " of ", a.operators.dim(0));
  const ArenaTensor next = scratch(ctx, a.state.dtype, {HV, K, V});
  if (ctx.mode == Mode::plan) return;
  if (a.count == 0) return zero(ctx, a.state);
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::segment_scan(ctx, a);
#endif
  if (ctx.mode == Mode::reference)
    reference::segment_scan(ctx, a, next);
  else
    cpu::segment_scan(ctx, a, next);
}

void set_identities(const Context& ctx, const Tensor& t) {
  SLUICE_CHECK(t.rank == 3 && t.dense() && t.dim(1) == t.dim(2), "t is ", to_string(t));
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::set_identities(ctx, t);
#endif
  const int64_t K = t.dim(1);
  for_float_type(t, [&](auto number) {
    for (int64_t i = 0; i < t.numel(); ++i)
      t.as<decltype(number)>()[i] = decltype(number)(i / K % K == i % K);
  });
}

}  // namespace sluice
