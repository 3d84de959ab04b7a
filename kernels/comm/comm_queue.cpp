// kernels/comm/comm_queue.cpp -- a thread that runs collectives in order.
#include "kernels/comm/comm_queue.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/base/trace.h"

namespace sluice {

struct CommQueue::State {
  explicit State(Comm& comm) : comm(comm) {}

  struct Job {
    std::string what;
    std::function<void(const CommUse&)> fn;
  };

  Comm& comm;
  const int exceptions = std::uncaught_exceptions();  // when the queue was made
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Job> jobs;  // front: the one that runs
  Ticket submitted = 0, done = 0;
  std::exception_ptr error;
  bool closing = false;
  std::jthread thread;

  void loop() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return closing || !jobs.empty(); });
      if (jobs.empty()) return;
      Job& job = jobs.front();
      lock.unlock();
      std::exception_ptr thrown;
      try {
        job.fn({.what = job.what});
      } catch (...) {
        thrown = std::current_exception();
      }
      lock.lock();
      error = thrown;
      if (error)
        jobs.clear();
      else
        jobs.pop_front();
      ++done;
      changed.notify_all();
      if (error) return;
    }
  }
};

CommQueue::CommQueue(Comm& comm) : state_(std::make_unique<State>(comm)) {
  state_->thread = std::jthread([s = state_.get(), rank = Trace::rank()] {
    Trace::set_rank(rank);
    s->loop();
  });
}

CommQueue::~CommQueue() {
  State& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    s.closing = true;
    s.changed.notify_all();
    if (std::uncaught_exceptions() > s.exceptions && !s.jobs.empty())
      s.comm.abort("an exception left work in its queue");
  }
  s.thread.join();
}

CommQueue::Ticket CommQueue::submit(std::string_view what, const Context& ctx,
                                    std::function<void(const CommUse&)> fn) {
  SLUICE_CHECK(ctx.device == Device::cpu, "a queue of collectives on ", name(ctx.device));
  State& s = *state_;
  const std::lock_guard lock(s.mutex);
  if (s.error) std::rethrow_exception(s.error);
  s.jobs.push_back({std::string(what), std::move(fn)});
  s.changed.notify_all();
  return ++s.submitted;
}

void CommQueue::wait(Ticket ticket, const Context&) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  s.changed.wait(lock, [&] { return s.done >= ticket || s.error; });
  if (s.error) std::rethrow_exception(s.error);
}

}  // namespace sluice
