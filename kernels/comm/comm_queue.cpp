// kernels/comm/comm_queue.cpp -- a stream where the back end queues by itself, else a thread.
#include "kernels/comm/comm_queue.h"

#include <array>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/base/trace.h"
#include "kernels/device/stream.h"

namespace sluice {
namespace {

// Points of a stream, by ticket. A ticket that is so old that its place was taken again is waited
// for by the newer point, which comes after it.
class Points {
 public:
  Event& of(CommQueue::Ticket ticket) { return events_[size_t(ticket) % events_.size()]; }

 private:
  static constexpr size_t kEvents = 64;
  template <size_t... I>
  static std::array<Event, kEvents> make(std::index_sequence<I...>) {
    return {((void)I, Event(Device::cuda))...};
  }
  std::array<Event, kEvents> events_ = make(std::make_index_sequence<kEvents>());
};

struct Job {
  std::string what;
  std::function<void(const CommUse&)> fn;
  CommQueue::Ticket ticket;
};

}  // namespace

struct CommQueue::State {
  State(Comm& comm, Device device) : comm(comm) {
    if (device == Device::cpu) return;
    gpu = current_gpu();
    stream = std::make_unique<Stream>();
    ready = std::make_unique<Points>();
    finished = std::make_unique<Points>();
  }

  Comm& comm;
  const int exceptions = std::uncaught_exceptions();  // when the queue was made
  // Of tensors on a GPU: where the work is queued, and points before and after it.
  int gpu = 0;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Points> ready, finished;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Job> jobs;  // front: the one that runs
  Ticket submitted = 0, done = 0;
  std::exception_ptr error;
  bool closing = false;
  std::jthread thread;  // none where the back end queues by itself

  Context context() const {
    return {.device = stream ? Device::cuda : Device::cpu,
            .stream = stream ? stream->get() : nullptr};
  }

  void run(const Job& job) {
    if (stream) ready->of(job.ticket).precede(context());
    job.fn({.what = job.what, .stream = stream ? stream->get() : nullptr});
    if (stream) finished->of(job.ticket).record(context());
  }

  void loop() {
    if (stream) use_gpu(gpu);
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return closing || !jobs.empty(); });
      if (jobs.empty()) return;
      const Job& job = jobs.front();
      lock.unlock();
      std::exception_ptr thrown;
      try {
        run(job);
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

CommQueue::CommQueue(Comm& comm, Device device) : state_(std::make_unique<State>(comm, device)) {
  if (device == Device::cuda && comm.queues_on_stream()) return;
  state_->thread = std::jthread([s = state_.get(), rank = Trace::rank()] {
    Trace::set_rank(rank);
    s->loop();
  });
}

CommQueue::~CommQueue() {
  State& s = *state_;
  const bool failing = std::uncaught_exceptions() > s.exceptions;
  if (!s.thread.joinable()) {
    if (failing && s.submitted > 0) s.comm.abort("an exception took its queue down");
    return;
  }
  {
    const std::lock_guard lock(s.mutex);
    s.closing = true;
    s.changed.notify_all();
    if (failing && !s.jobs.empty()) s.comm.abort("an exception left work in its queue");
  }
  s.thread.join();
}

CommQueue::Ticket CommQueue::submit(std::string_view what, const Context& ctx,
                                    std::function<void(const CommUse&)> fn) {
  State& s = *state_;
  SLUICE_CHECK(ctx.device == s.context().device, "a queue on ", name(s.context().device),
               " is given work on ", name(ctx.device));
  const std::lock_guard lock(s.mutex);
  if (s.error) std::rethrow_exception(s.error);
  Job job = {std::string(what), std::move(fn), ++s.submitted};
  if (s.stream) s.ready->of(job.ticket).record(ctx);
  if (!s.thread.joinable()) {
    s.run(job);
    return job.ticket;
  }
  s.jobs.push_back(std::move(job));
  s.changed.notify_all();
  return s.submitted;
}

void CommQueue::wait(Ticket ticket, const Context& ctx) {
  State& s = *state_;
  if (s.thread.joinable()) {
    std::unique_lock lock(s.mutex);
    s.changed.wait(lock, [&] { return s.done >= ticket || s.error; });
    if (s.error) std::rethrow_exception(s.error);
  }
  if (s.stream) s.finished->of(ticket).precede(ctx);
}

}  // namespace sluice
