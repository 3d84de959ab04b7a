// kernels/comm/comm_queue.h -- collectives that run beside compute, in the order of submission.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "kernels/comm/comm.h"
#include "kernels/tensor/context.h"

namespace sluice {

// A thread runs them; if the back end queues on streams (Comm::queues_on_stream) and tensors are on
// a GPU, a stream does, the host waits for nothing, and graphs may capture it if what is submitted
// inside is waited for inside.
//
// Submit the same work in the same order on all ranks. While it runs, the communicator and others
// that the work uses are the queue's: the caller's own collectives go through another one (a split
// of the same ranks).
class CommQueue {
 public:
  using Ticket = int64_t;

  // `comm` is what the work uses, on tensors of `device`; it is aborted if an exception takes the
  // queue down while others may wait for its work.
  explicit CommQueue(Comm& comm, Device device = Device::cpu);
  ~CommQueue();  // does what was submitted
  CommQueue(const CommQueue&) = delete;
  CommQueue& operator=(const CommQueue&) = delete;

  // Runs fn(use) beside the caller, after what was queued on the context's stream so far. If it
  // throws, later work is dropped, and submit and wait throw the same.
  Ticket submit(std::string_view what, const Context& ctx, std::function<void(const CommUse&)> fn);
  // What is done with the context after this comes after the work.
  void wait(Ticket ticket, const Context& ctx);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
