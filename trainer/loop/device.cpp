// trainer/loop/device.cpp -- a stream and a handle of cuBLASLt, or nothing.
#include "trainer/loop/device.h"

#ifdef SLUICE_CUDA_BUILD
#include "kernels/gemm/cuda_gemm.h"
#include "kernels/mla/cudnn.h"
#endif

namespace sluice {

Device device_of(const std::string& name) {
  return name == "cuda" ? Device::cuda : Device::cpu;
}

Determinism determinism_of(const std::string& name) {
  return name == "fast" ? Determinism::fast : Determinism::strict;
}

DeviceHandles::DeviceHandles(Device device, Context& ctx, Determinism determinism) {
  ctx.device = device;
  ctx.determinism = determinism;
  if (device == Device::cpu) return;
  stream_ = std::make_unique<Stream>();
  ctx.stream = stream_->get();
#ifdef SLUICE_CUDA_BUILD
  gemm_ = std::make_shared<CudaGemm>();
  ctx.gemm = gemm_.get();
#endif
#ifdef SLUICE_CUDNN
  attention_ = std::make_shared<CudnnAttention>();
  ctx.attention = attention_.get();
#endif
}

std::function<void()> DeviceHandles::wait() const {
  if (!stream_) return {};
  return [this] { stream_->synchronize(); };
}

DeviceState::DeviceState(Device device) : memory_(DType::u8, {sizeof(StepState)}, device) {
  put({});
}

static Tensor bytes_of(StepState& host) {
  return make_tensor(&host, DType::u8, Device::cpu, {sizeof host});
}

StepState* DeviceState::put(const StepState& host) {
  StepState from = host;
  copy(bytes_of(from), memory_.view());
  return at();
}

StepState DeviceState::take() const {
  StepState to;
  copy(memory_.view(), bytes_of(to));
  return to;
}

}  // namespace sluice
