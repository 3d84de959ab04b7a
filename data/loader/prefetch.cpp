// data/loader/prefetch.cpp -- one producer, one consumer.
#include "data/loader/prefetch.h"

#include <chrono>
#include <utility>

#include "kernels/base/check.h"

namespace sluice {

static std::vector<MicroBatchBuffer> three_buffers(const Loader& loader) {
  std::vector<MicroBatchBuffer> buffers;
  for (int i = 0; i < 3; ++i) buffers.push_back(loader.make_buffer());
  return buffers;
}

Prefetcher::Prefetcher(Loader& loader)
    : Prefetcher(three_buffers(loader), loader.micro_batches(),
                 [&loader](int64_t step, int64_t m, MicroBatch& b) { loader.load(step, m, b); }) {}

Prefetcher::Prefetcher(std::vector<MicroBatchBuffer> buffers, int64_t micro_batches, Load load)
    : buffers_(std::move(buffers)), micro_batches_(micro_batches), load_(std::move(load)) {
  SLUICE_CHECK(buffers_.size() >= 2, buffers_.size(),
               " buffers, expected one in use and one ahead");
  SLUICE_CHECK(micro_batches_ > 0, micro_batches_, " micro-batches a step");
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

const MicroBatch& Prefetcher::get(int64_t step, int64_t micro_batch) {
  SLUICE_CHECK(step >= 0 && micro_batch >= 0 && micro_batch < micro_batches_, "step ", step,
               ", micro-batch ", micro_batch, " of ", micro_batches_);
  const auto begin = std::chrono::steady_clock::now();
  const int64_t want = step * micro_batches_ + micro_batch;
  std::unique_lock lock(mutex_);
  if (want != asked_ && want != asked_ + 1) {
    made_ = want;
    error_ = nullptr;
    ++jumps_;
  }
  asked_ = want;
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
  changed_.wait(lock, [&] { return made_ > want || error_; });
  const std::chrono::duration<double, std::milli> waited = std::chrono::steady_clock::now() - begin;
  waited_ms_ += waited.count();
  if (made_ <= want) std::rethrow_exception(error_);
  return buffers_[size_t(want) % buffers_.size()].batch();
}

void Prefetcher::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock,
                  [&] { return stop_ || (!error_ && made_ < asked_ + int64_t(buffers_.size())); });
    if (stop_) return;
    const int64_t next = made_, jumps = jumps_;
    std::exception_ptr error;
    lock.unlock();
    try {
      load_(next / micro_batches_, next % micro_batches_,
            buffers_[size_t(next) % buffers_.size()].batch());
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (jumps != jumps_) continue;
    if (error)
      error_ = error;
    else
      ++made_;
    changed_.notify_all();
  }
}

}  // namespace sluice
