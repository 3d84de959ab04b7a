// kernels/cast/cast.cpp -- the contract, and the CPU's loop, which is the definition.
#include "kernels/cast/cast.h"

#include <cmath>
#include <cstring>

namespace sluice {

namespace cuda {
void cast(const Context& ctx, const Cast& a);
void widen(const Context& ctx, const Widen& a);
}  // namespace cuda

static uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isnan(x))
    return uint16_t(bits >> 16 | 0x40);  // stays NaN: rounding could make it infinite
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void cast(const Context& ctx, const Cast& a) {
  const int64_t n = a.from.dim(0);
  check_shape(a.from, "from", {n}, DType::f32, ctx.device);
  check_shape(a.to, "to", {n}, DType::bf16, ctx.device);
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::cast(ctx, a);
#endif
  for (int64_t i = 0; i < n; ++i)
    static_cast<uint16_t*>(a.to.data)[i] = to_bf16(a.from.as<float>()[i]);
}

void widen(const Context& ctx, const Widen& a) {
  const int64_t n = a.from.dim(0);
  check_shape(a.from, "from", {n}, DType::bf16, ctx.device);
  check_shape(a.to, "to", {n}, DType::f32, ctx.device);
  if (ctx.mode == Mode::plan) return;
#ifdef SLUICE_CUDA_BUILD
  if (ctx.device == Device::cuda) return cuda::widen(ctx, a);
#endif
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = uint32_t(static_cast<const uint16_t*>(a.from.data)[i]) << 16;
    std::memcpy(a.to.as<float>() + i, &bits, sizeof bits);
  }
}

}  // namespace sluice
