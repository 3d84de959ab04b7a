// data/loader/prefetch.h -- micro-batches made by a thread of their own while the step before runs.
//
// Which micro-batch comes when, and what is in it, is the loader's business: the thread makes the
// ones after the last that was asked for, as far as there are buffers. Asking for any other one is
// right too, and waits. So nothing of this is seen in the bits.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "data/loader/loader.h"

namespace sluice {

class Prefetcher {
 public:
  // Makes a micro-batch; called by one thread at a time.
  using Load = std::function<void(int64_t step, int64_t micro_batch, MicroBatch& batch)>;

  Prefetcher(std::vector<MicroBatchBuffer> buffers, int64_t micro_batches, Load load);
  // Three buffers. From the first get() on only the thread may use the loader.
  explicit Prefetcher(Loader& loader);
  ~Prefetcher();  // waits for the micro-batch that is being made
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // Valid until the next call. Throws what making this micro-batch threw.
  const MicroBatch& get(int64_t step, int64_t micro_batch);
  double waited_ms() const { return waited_ms_; }  // in all calls of get()

 private:
  void run();

  std::vector<MicroBatchBuffer> buffers_;  // micro-batch i of the run is in i % buffers
  const int64_t micro_batches_;            // of a step
  const Load load_;
  double waited_ms_ = 0;

  std::mutex mutex_;  // of all that follows
  std::condition_variable changed_;
  int64_t asked_ = -1;        // the micro-batch that was asked for last: its buffer is in use
  int64_t made_ = 0;          // asked_ to made_ - 1 are there; made_ is the next
  std::exception_ptr error_;  // why made_ could not be made
  int64_t jumps_ = 0;         // what was begun before the last of them is not wanted any more
  bool stop_ = false;
  std::thread thread_;  // from the first get() on
};

}  // namespace sluice
