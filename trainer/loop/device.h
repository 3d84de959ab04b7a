// trainer/loop/device.h -- what run.device names, and the handles that a context of it points to.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "kernels/device/stream.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/context.h"
#include "kernels/tensor/step_state.h"

namespace sluice {

// `auto` is the CPU as long as CUDA lacks ops that some model needs.
Device device_of(const std::string& name);
Determinism determinism_of(const std::string& name);

class DeviceHandles {
 public:
  // Completes `ctx` for `device`, which must be there. Its handles live as long as this object.
  DeviceHandles(Device device, Context& ctx, Determinism determinism = Determinism::strict);
  // Returns when what was queued is done; empty where nothing is queued.
  std::function<void()> wait() const;

 private:
  std::unique_ptr<Stream> stream_;
  // Shared ones need no complete type where there is no CUDA.
  std::shared_ptr<CudaGemm> gemm_;
  std::shared_ptr<CudnnAttention> attention_;
};

// The step state where the device's kernels read and write it.
class DeviceState {
 public:
  explicit DeviceState(Device device);
  StepState* at() const { return static_cast<StepState*>(memory_.view().data); }
  const Tensor& bytes() const { return memory_.view(); }  // [sizeof(StepState)] u8

  // Now; both wait for what is queued.
  StepState* put(const StepState& host);
  StepState take() const;

 private:
  Buffer memory_;
};

}  // namespace sluice
