// data/encode/pipeline.h -- one reader, any number of workers, results in the order of reading.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace sluice {

// read(In&) gives one piece of work after the other, false at the end; it runs in a thread of its
// own. make_worker() is called once a worker and gives a function In -> Out. take(Out) gets the
// results in order, in the calling thread; false: that is enough. At most 2 * workers + 2 pieces
// exist at a time. An exception of read or of a worker is thrown when its turn comes, so it is the
// same one whatever the number of workers.
template <class In, class Out, class Read, class MakeWorker, class Take>
void ordered_pipeline(int workers, Read read, MakeWorker make_worker, Take take) {
  struct Slot {
    In in;
    std::optional<Out> out;
    std::exception_ptr error;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<Slot>> order, todo;  // shared: a slot is in both until it is worked on
  bool ended = false, stop = false;
  const size_t most = 2 * size_t(workers) + 2;

  const auto put = [&](std::shared_ptr<Slot> slot, bool work) {
    const std::lock_guard lock(mutex);
    order.push_back(slot);
    if (work) todo.push_back(std::move(slot));
    changed.notify_all();
  };
  const auto reading = [&] {
    for (bool more = true; more;) {
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || order.size() < most; });
        if (stop) break;
      }
      auto slot = std::make_shared<Slot>();
      try {
        more = read(slot->in);
      } catch (...) {
        slot->error = std::current_exception();
        more = false;
      }
      if (more || slot->error) put(slot, more);
    }
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  };
  const auto working = [&] {
    auto work = make_worker();
    for (;;) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return stop || ended || !todo.empty(); });
      if (stop || todo.empty()) return;
      const std::shared_ptr<Slot> slot = std::move(todo.front());
      todo.pop_front();
      lock.unlock();
      std::optional<Out> out;
      std::exception_ptr error;
      try {
        out.emplace(work(std::move(slot->in)));
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      slot->out = std::move(out);
      slot->error = error;
      changed.notify_all();
    }
  };

  std::vector<std::thread> threads;
  const auto join = [&] {
    {
      const std::lock_guard lock(mutex);
      stop = true;
      changed.notify_all();
    }
    for (std::thread& t : threads) t.join();
  };
  try {
    threads.emplace_back(reading);
    for (int w = 0; w < workers; ++w) threads.emplace_back(working);
    for (bool more = true; more;) {
      std::shared_ptr<Slot> slot;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] {
          return order.empty() ? ended : order.front()->out || order.front()->error;
        });
        if (order.empty()) break;
        slot = std::move(order.front());
        order.pop_front();
        changed.notify_all();
      }
      if (slot->error) std::rethrow_exception(slot->error);
      more = take(std::move(*slot->out));
    }
  } catch (...) {
    join();
    throw;
  }
  join();
}

}  // namespace sluice
