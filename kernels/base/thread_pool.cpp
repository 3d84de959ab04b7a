// kernels/base/thread_pool.cpp -- workers sleep on a condition variable between loops.
#include "kernels/base/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/base/check.h"

namespace sluice {

struct ThreadPool::Shared {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable start, done;
  uint64_t generation = 0;  // of the loop that runs; guarded by mutex
  int busy = 0;             // workers that have not finished it; guarded by mutex
  bool stopping = false;    // guarded by mutex
  const std::function<void(int64_t)>* body = nullptr;
  int64_t blocks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<bool> running{false};
  std::exception_ptr error;  // the first; guarded by mutex

  void work() {
    for (int64_t i; (i = next.fetch_add(1)) < blocks;) {
      try {
        (*body)(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
    }
  }

  void worker() {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex);
        start.wait(lock, [&] { return stopping || generation != seen; });
        if (stopping) return;
        seen = generation;
      }
      work();
      const std::lock_guard lock(mutex);
      if (--busy == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : shared_(std::make_unique<Shared>()) {
  SLUICE_CHECK(threads >= 1, "threads is ", threads);
  for (int i = 1; i < threads; ++i)
    shared_->workers.emplace_back([shared = shared_.get()] { shared->worker(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stopping = true;
  }
  shared_->start.notify_all();
  for (std::thread& t : shared_->workers) t.join();
}

int ThreadPool::threads() const {
  return int(shared_->workers.size()) + 1;
}

void ThreadPool::parallel_for(int64_t blocks, const std::function<void(int64_t)>& body) {
  Shared& s = *shared_;
  SLUICE_CHECK(!s.running.exchange(true), "a loop in a loop, or from two threads at once");
  struct Done {
    std::atomic<bool>& running;
    ~Done() { running = false; }
  } when_done{s.running};
  if (s.workers.empty() || blocks <= 1) {
    for (int64_t i = 0; i < blocks; ++i) body(i);
    return;
  }
  {
    const std::lock_guard lock(s.mutex);
    s.body = &body;
    s.blocks = blocks;
    s.next = 0;
    s.busy = int(s.workers.size());
    s.error = nullptr;
    ++s.generation;
  }
  s.start.notify_all();
  s.work();
  std::unique_lock lock(s.mutex);
  s.done.wait(lock, [&] { return s.busy == 0; });
  if (s.error) std::rethrow_exception(s.error);
}

}  // namespace sluice
