// kernels/base/profile_range.h -- a named stretch of the host's work, for a profiler's time line
// (NVTX).
//
// Ops are named by SLUICE_DISPATCH, blocks by the tape, phases of a step by the trainer. Without a
// profiler a range is a test of a pointer; without CUDA it is nothing.
#pragma once

namespace sluice {

class ProfileRange {
 public:
  explicit ProfileRange(const char* name);
  ~ProfileRange();
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;
};

#ifndef SLUICE_CUDA_BUILD
inline ProfileRange::ProfileRange(const char*) {}
inline ProfileRange::~ProfileRange() {}
#endif

}  // namespace sluice
