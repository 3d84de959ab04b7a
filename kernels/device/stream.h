// kernels/device/stream.h -- owners of the queue that a rank's work goes through, and of points of
// it.
#pragma once

#include <memory>

#include "kernels/tensor/context.h"

struct CUevent_st;

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

// A point of a stream that the host can wait for. Waiting for one that was never recorded returns
// at once. Nothing on the CPU.
class Event {
 public:
  explicit Event(Device device);
  void record(const Context& ctx);
  void wait() const;
  // What is queued on the context's stream from now on comes after the point; the host goes on.
  void precede(const Context& ctx) const;

 private:
  struct Destroy {
    void operator()(CUevent_st* e) const;
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

// The GPU that the calling thread uses; 0 without CUDA.
int current_gpu();
void use_gpu(int index);
int gpu_count();

int64_t free_device_bytes();  // that could be allocated now

// "NVIDIA H100 80GB HBM3, driver 13.0, runtime 13.0": part of the fingerprint of a run.
const char* gpu_name();

// Bytes of the current device's memory that are not free: everybody's. 0 on the CPU.
int64_t used_device_bytes(Device device);

}  // namespace sluice
