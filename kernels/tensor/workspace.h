// kernels/tensor/workspace.h -- memory of one unit of a parallel loop, where the arena cannot serve
// (it belongs to the thread that queues the work).
#pragma once

#include <cstdint>
#include <new>

#include "kernels/base/check.h"

namespace sluice {

// Uninitialised memory of one call's thread: arrays that start on cache lines.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t elements)
      : memory_(static_cast<T*>(::operator new(size_t(elements) * sizeof(T), kLine))),
        left_(elements),
        next_(memory_) {}
  ~Workspace() { ::operator delete(memory_, kLine); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  T* take(int64_t n) {
    T* p = next_;
    SLUICE_CHECK(rounded(n) <= left_, "takes ", n, " elements of ", left_);
    next_ += rounded(n), left_ -= rounded(n);
    return p;
  }
  static int64_t rounded(int64_t n) { return (n + 15) / 16 * 16; }

 private:
  static constexpr std::align_val_t kLine{64};
  T* memory_;
  int64_t left_;
  T* next_;
};

}  // namespace sluice
