// kernels/comm/comm_staging.cpp -- copy, run, copy back.
#include "kernels/comm/comm_staging.h"

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {
namespace {

#ifdef SLUICE_CUDA_BUILD
void copy_bytes(const Tensor& from, const Tensor& to, CUstream_st* stream) {
  if (from.bytes() > 0)
    SLUICE_CUDA(
        cudaMemcpyAsync(to.data, from.data, size_t(from.bytes()), cudaMemcpyDefault, stream));
}
void synchronize(CUstream_st* stream) {
  SLUICE_CUDA(cudaStreamSynchronize(stream));
}
#else
void copy_bytes(const Tensor&, const Tensor&, CUstream_st*) {
  SLUICE_CHECK(false, "this build has no CUDA");
}
void synchronize(CUstream_st*) {}
#endif

}  // namespace

CommStaging::CommStaging(Device place) : place_(place) {
  if (place == Device::cuda) stream_ = std::make_unique<Stream>();
}

Tensor CommStaging::copy_of(const Tensor& t, int which) {
  const Tensor& have = place_ == Device::cpu ? pinned_[which].view() : device_[which].view();
  if (!have || have.bytes() < t.bytes()) {
    if (place_ == Device::cpu)
      pinned_[which] = PinnedBuffer(Device::cuda, t.bytes());
    else
      device_[which] = Buffer(DType::u8, {t.bytes()}, place_);
  }
  Tensor copy = t;
  copy.device = place_;
  copy.data = place_ == Device::cpu ? pinned_[which].view().data : device_[which].view().data;
  return copy;
}

void CommStaging::run(const CommCall& call, const std::function<void(const CommCall&)>& execute) {
  CommCall staged = call;
  CUstream_st* const stream = stream_ ? stream_->get() : call.use.stream;
  staged.use.stream = stream;
  staged.in = copy_of(call.in, 0);
  const bool in_place = call.out.data == call.in.data && call.out.bytes() == call.in.bytes();
  staged.out = in_place ? staged.in : copy_of(call.out, 1);
  copy_bytes(call.in, staged.in, stream);
  // What lies between the parts stays as it is.
  if (call.op == CommOp::all_to_all_v) copy_bytes(call.out, staged.out, stream);
  synchronize(stream);
  execute(staged);
  copy_bytes(staged.out, call.out, stream);
  synchronize(stream);
}

}  // namespace sluice
