// kernels/comm/local_comm.h -- N ranks as threads of one process.
#pragma once

#include <functional>
#include <memory>

#include "kernels/comm/comm.h"

namespace sluice {

// What a collective costs beside the copies: latency, and the bytes that a rank sends at this rate.
// To see what overlaps. 0: nothing.
struct LocalLink {
  double latency_seconds = 0;
  double bytes_per_second = 0;
};

class LocalGroup {
 public:
  explicit LocalGroup(int size, LocalLink link = {});
  ~LocalGroup();
  LocalGroup(const LocalGroup&) = delete;
  LocalGroup& operator=(const LocalGroup&) = delete;

  int size() const;

  // Runs body(comm) once a rank, each on a thread of its own, and returns when all are done. The
  // first exception of a rank is rethrown here; it releases the ranks that wait for that rank (now
  // or later) with an Error, and so does a rank that returns while others wait for it. May be
  // called again, also after a failure; one caller at a time.
  void run(const std::function<void(Comm&)>& body);

  struct World;

 private:
  std::unique_ptr<World> world_;
};

}  // namespace sluice
