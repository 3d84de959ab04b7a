// kernels/base/thread_pool.h -- a fixed set of threads for loops whose blocks do not share output.
//
// The blocks of a loop are the same whatever the number of threads, every block is computed by one
// thread alone, and reductions across blocks are done by the caller in block order: so the number
// of threads changes no bit of a result.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace sluice {

class ThreadPool {
 public:
  // `threads` workers in all, the caller of parallel_for counted in. At least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Runs body(0) ... body(blocks - 1), in any order, on the workers and the caller; returns when
  // all are done. The first exception of a block is rethrown here. One loop at a time: a call from
  // a body, or from a second thread, is an Error.
  void parallel_for(int64_t blocks, const std::function<void(int64_t)>& body);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace sluice
