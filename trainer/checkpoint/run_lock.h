// trainer/checkpoint/run_lock.h -- one process to a run folder.
#pragma once

#include <string>

namespace sluice {

// Holds RUN/lock (flock) until destroyed, and makes the run folder if there is none. The kernel
// lets go of the lock of a process that dies, so nothing stale remains. A second one, in this
// process too, is an Error with the holder's pid and host. Children that are forked while it is
// held keep it as well; exec drops it.
class RunLock {
 public:
  explicit RunLock(const std::string& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  const std::string& run_dir() const { return run_dir_; }

 private:
  std::string run_dir_;
  int fd_ = -1;
};

}  // namespace sluice
