// trainer/loop/device.cpp -- a stream and a handle of cuBLASLt, or nothing.
#include "trainer/loop/device.h"

#ifdef SLUICE_CUDA_BUILD
#include "kernels/gemm/cuda_gemm.h"
#endif

namespace sluice {

Device device_of(const std::string& name) {
  return name == "cuda" ? Device::cuda : Device::cpu;
}

DeviceHandles::DeviceHandles(Device device, Context& ctx) {
  ctx.device = device;
  if (device == Device::cpu) return;
  stream_ = std::make_unique<Stream>();
  ctx.stream = stream_->get();
#ifdef SLUICE_CUDA_BUILD
  gemm_ = std::make_shared<CudaGemm>();
  ctx.gemm = gemm_.get();
#endif
}

std::function<void()> DeviceHandles::wait() const {
  if (!stream_) return {};
  return [this] { stream_->synchronize(); };
}

DeviceState::DeviceState(Device device) {
  if (device == Device::cuda) memory_ = Buffer(DType::u8, {sizeof(StepState)}, device);
}

static Tensor bytes_of(StepState& host) {
  return make_tensor(&host, DType::u8, Device::cpu, {sizeof host});
}

StepState* DeviceState::put(StepState& host) {
  if (!memory_.view()) return &host;
  copy(bytes_of(host), memory_.view());
  return static_cast<StepState*>(memory_.view().data);
}

void DeviceState::take(StepState& host) const {
  if (memory_.view()) copy(memory_.view(), bytes_of(host));
}

}  // namespace sluice
