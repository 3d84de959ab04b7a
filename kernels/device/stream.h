// kernels/device/stream.h -- owner of the queue that a rank's work goes through.
#pragma once

#include <memory>

#include "kernels/tensor/tensor.h"

struct CUstream_st;

namespace sluice {

// A stream of the current device. Copies of kernels/tensor/buffer.h, which go through the default
// stream, wait for it and it for them. An Error if the build has no CUDA, or the machine no GPU.
class Stream {
 public:
  Stream();
  CUstream_st* get() const { return stream_.get(); }
  void synchronize() const;

 private:
  struct Destroy {
    void operator()(CUstream_st* s) const;
  };
  std::unique_ptr<CUstream_st, Destroy> stream_;
};

// "NVIDIA H100 80GB HBM3, driver 13.0, runtime 13.0": part of the fingerprint of a run.
const char* gpu_name();

// Bytes of the current device's memory that are not free: everybody's. 0 on the CPU.
int64_t used_device_bytes(Device device);

}  // namespace sluice
