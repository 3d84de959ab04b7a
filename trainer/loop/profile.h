// trainer/loop/profile.h -- `sluice train --profile FILE`: a time line of some steps of all ranks.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/trace.h"
#include "kernels/comm/comm.h"

namespace sluice {

struct ProfileRequest {
  std::string file;   // Chrome's trace format
  int64_t after = 3;  // steps of this start of the run: what is done once is done by then
  int64_t steps = 2;
};

// Spans of all ranks on rank 0, nothing on the others. Clocks of other machines are set to rank
// 0's, as well as a barrier tells.
std::vector<TraceSpan> gather_spans(Comm& world, std::vector<TraceSpan> mine);

class StepProfile {
 public:
  // Spans are of the host's clock, which knows when work was queued, not when a GPU did it: an
  // Error on CUDA, where Nsight Systems shows what ranges name (kernels/base/profile_range.h).
  StepProfile(const ProfileRequest& request, Comm& world, Device device);

  // Before each step, and after the last one, with the number of steps that this start has done.
  // True if the file has just been written (by rank 0).
  bool at(int64_t steps_done);

 private:
  bool write();

  ProfileRequest request_;
  Comm& world_;
  bool open_ = false;
};

}  // namespace sluice
