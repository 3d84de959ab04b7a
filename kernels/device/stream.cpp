// kernels/device/stream.cpp -- the CUDA calls, or the Error where there is no CUDA.
#include "kernels/device/stream.h"

#include <string>

#include "kernels/base/check.h"

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

#ifdef SLUICE_CUDA_BUILD

Stream::Stream() {
  int count = 0;
  const cudaError_t e = cudaGetDeviceCount(&count);
  SLUICE_CHECK(e == cudaSuccess && count > 0, "no GPU: ", cudaGetErrorName(e), ": ",
               cudaGetErrorString(e));
  cudaStream_t stream = nullptr;
  SLUICE_CUDA(cudaStreamCreate(&stream));
  stream_.reset(stream);
}

void Stream::Destroy::operator()(CUstream_st* s) const {
  (void)cudaStreamDestroy(s);  // a destructor: what failed is reported by the call that failed
}

void Stream::synchronize() const {
  SLUICE_CUDA(cudaStreamSynchronize(stream_.get()));
}

Event::Event(Device device) {
  if (device == Device::cpu) return;
  cudaEvent_t event = nullptr;
  SLUICE_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  event_.reset(event);
}
void Event::Destroy::operator()(CUevent_st* e) const {
  (void)cudaEventDestroy(e);
}
void Event::record(const Context& ctx) {
  if (event_) SLUICE_CUDA(cudaEventRecord(event_.get(), ctx.stream));
}
void Event::wait() const {
  if (event_) SLUICE_CUDA(cudaEventSynchronize(event_.get()));
}

void Event::precede(const Context& ctx) const {
  if (event_) SLUICE_CUDA(cudaStreamWaitEvent(ctx.stream, event_.get()));
}

int current_gpu() {
  int device = 0;
  SLUICE_CUDA(cudaGetDevice(&device));
  return device;
}
void use_gpu(int index) {
  SLUICE_CUDA(cudaSetDevice(index));
}
int gpu_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

int64_t free_device_bytes() {
  size_t free = 0, total = 0;
  SLUICE_CUDA(cudaMemGetInfo(&free, &total));
  return int64_t(free);
}

const char* gpu_name() {
  static const std::string text = [] {
    cudaDeviceProp p;
    int device = 0, driver = 0, runtime = 0;
    SLUICE_CUDA(cudaGetDevice(&device));
    SLUICE_CUDA(cudaGetDeviceProperties(&p, device));
    SLUICE_CUDA(cudaDriverGetVersion(&driver));
    SLUICE_CUDA(cudaRuntimeGetVersion(&runtime));
    const auto version = [](int v) { return cat(v / 1000, ".", v % 1000 / 10); };
    return cat(p.name, ", driver ", version(driver), ", runtime ", version(runtime));
  }();
  return text.c_str();
}

int64_t used_device_bytes(Device device) {
  if (device == Device::cpu) return 0;
  size_t left = 0, all = 0;
  SLUICE_CUDA(cudaMemGetInfo(&left, &all));
  return int64_t(all - left);
}

#else

int64_t used_device_bytes(Device) {
  return 0;
}
Stream::Stream() {
  SLUICE_CHECK(false, "this build has no CUDA");
}
void Stream::Destroy::operator()(CUstream_st*) const {}
void Stream::synchronize() const {}
Event::Event(Device device) {
  SLUICE_CHECK(device == Device::cpu, "this build has no CUDA");
}
void Event::Destroy::operator()(CUevent_st*) const {}
void Event::record(const Context&) {}
void Event::wait() const {}
void Event::precede(const Context&) const {}
int current_gpu() {
  return 0;
}
void use_gpu(int) {
  SLUICE_CHECK(false, "this build has no CUDA");
}
int gpu_count() {
  return 0;
}
int64_t free_device_bytes() {
  return 0;
}
const char* gpu_name() {
  return "none";
}

#endif

}  // namespace sluice
