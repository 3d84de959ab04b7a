// kernels/device/graph.h -- work that is recorded once and queued again as a whole.
#pragma once

#include <functional>
#include <memory>

#include "kernels/tensor/context.h"

struct CUgraphExec_st;

namespace sluice {

// Queueing a kernel costs the host some microseconds, a graph of them hardly more than one. Of what
// `body` does, everything that it queues on the context's stream is in the graph, with the
// addresses and numbers that it had; what it does on the host happens once. Waiting, allocating or
// a copy from pageable memory inside is an Error. CUDA only.
class Graph {
 public:
  explicit operator bool() const { return exec_ != nullptr; }
  void capture(const Context& ctx, const std::function<void()>& body);  // runs nothing
  void launch(const Context& ctx) const;

 private:
  struct Destroy {
    void operator()(CUgraphExec_st* g) const;
  };
  std::unique_ptr<CUgraphExec_st, Destroy> exec_;
};

}  // namespace sluice
