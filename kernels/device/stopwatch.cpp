// kernels/device/stopwatch.cpp -- events of a stream, or the host's clock.
#include "kernels/device/stopwatch.h"

#include <chrono>

#ifdef SLUICE_CUDA_BUILD
#include "kernels/base/cuda_check.h"
#endif

namespace sluice {

struct Stopwatch::State {
  using Clock = std::chrono::steady_clock;
  bool on_cpu;
  CUstream_st* stream;
  size_t count = 0;  // of marks
  std::vector<Clock::time_point> now;
#ifdef SLUICE_CUDA_BUILD
  std::vector<cudaEvent_t> events;  // made once, used again

  ~State() {
    for (cudaEvent_t e : events) (void)cudaEventDestroy(e);
  }
  void record() {
    if (count == events.size()) SLUICE_CUDA(cudaEventCreate(&events.emplace_back()));
    SLUICE_CUDA(cudaEventRecord(events[count], stream));
  }
  std::vector<double> elapsed() {
    std::vector<double> seconds(count);
    if (count > 0) SLUICE_CUDA(cudaEventSynchronize(events[count - 1]));
    for (size_t i = 0; i < count; ++i) {
      float ms = 0;
      SLUICE_CUDA(cudaEventElapsedTime(&ms, events[0], events[i]));
      seconds[i] = double(ms) / 1e3;
    }
    return seconds;
  }
#endif
};

Stopwatch::Stopwatch(const Context& ctx) : state_(std::make_unique<State>()) {
  state_->on_cpu = ctx.device == Device::cpu;
  state_->stream = ctx.stream;
}
Stopwatch::~Stopwatch() = default;

void Stopwatch::mark() {
  if (state_->on_cpu) state_->now.push_back(State::Clock::now());
#ifdef SLUICE_CUDA_BUILD
  if (!state_->on_cpu) state_->record();
#endif
  ++state_->count;
}

std::vector<double> Stopwatch::take() {
  std::vector<double> seconds;
  for (const auto& t : state_->now)
    seconds.push_back(std::chrono::duration<double>(t - state_->now.front()).count());
#ifdef SLUICE_CUDA_BUILD
  if (!state_->on_cpu) seconds = state_->elapsed();
#endif
  state_->now.clear();
  state_->count = 0;
  return seconds;
}

}  // namespace sluice
