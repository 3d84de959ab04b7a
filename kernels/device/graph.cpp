// kernels/device/graph.cpp -- stream capture.
#include "kernels/device/graph.h"

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

#ifdef SLUICE_CUDA_BUILD

void Graph::capture(const Context& ctx, const std::function<void()>& body) {
  struct Owner {
    cudaGraph_t graph = nullptr;
    ~Owner() {
      if (graph) (void)cudaGraphDestroy(graph);
    }
  } owner;
  SLUICE_CUDA(cudaStreamBeginCapture(ctx.stream, cudaStreamCaptureModeThreadLocal));
  try {
    body();
  } catch (...) {
    (void)cudaStreamEndCapture(ctx.stream, &owner.graph);
    (void)cudaGetLastError();
    throw;
  }
  SLUICE_CUDA(cudaStreamEndCapture(ctx.stream, &owner.graph));
  cudaGraphExec_t exec = nullptr;
  SLUICE_CUDA(cudaGraphInstantiate(&exec, owner.graph, 0));
  exec_.reset(exec);
}

void Graph::launch(const Context& ctx) const {
  SLUICE_CUDA(cudaGraphLaunch(exec_.get(), ctx.stream));
}

void Graph::Destroy::operator()(CUgraphExec_st* g) const {
  (void)cudaGraphExecDestroy(g);
}

#else

void Graph::capture(const Context&, const std::function<void()>&) {
  SLUICE_CHECK(false, "this build has no CUDA");
}
void Graph::launch(const Context&) const {}
void Graph::Destroy::operator()(CUgraphExec_st*) const {}

#endif

}  // namespace sluice
