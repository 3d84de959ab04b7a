// trainer/checkpoint/shared_save.h -- one checkpoint by many ranks.
//
// RUN/checkpoints/step-00000400/
//   weights-00003-of-00008.safetensors, optimizer-...   rank 3's pieces, flat [n]; a rank that has
//                                                       nothing to write has no file
//   config.yaml, manifest.json                          rank 0's, when all pieces are on the disk
//
// Elements that several ranks hold (replicas) are written by the lowest of them.
#pragma once

#include <string>
#include <vector>

#include "kernels/comm/comm.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"

namespace sluice {

// open, write, gather, publish, in this order. Those that say so are collectives and give the same
// answer on all ranks; write and publish talk to nobody and may run on a thread of their own.
class SharedSave {
 public:
  // Collective. Takes from each list what this rank does not write. Throws on all ranks if an
  // element of a tensor is nobody's, or two ranks have parts that overlap.
  SharedSave(Comm& comm, const std::string& run_dir, const Retention& retention,
             std::vector<NamedTensor>* weights, std::vector<NamedTensor>* optimizer);

  int64_t bytes() const { return bytes_; }  // of all ranks

  std::string open(const CheckpointMeta& meta);  // collective. "" or what went wrong, and where
  // Of this rank, on the disk when this returns; throws.
  void write(const std::vector<NamedTensor>& weights, const std::vector<NamedTensor>& optimizer);
  // Collective, when write() has ended on all ranks, here with `error` if not empty: as open().
  // After an error nothing is left of the save.
  std::string gather(const std::string& error);
  SaveResult publish();  // rank 0; throws

 private:
  void fill(const int64_t* results, int rank);

  Comm& comm_;
  std::string run_dir_, folder_;
  Retention retention_;
  Manifest manifest_;          // files and types are those of every save
  std::vector<int64_t> mine_;  // results: sizes and checksums, in the manifest's order
  int64_t longest_ = 0;        // number of results of a rank, at most
  int64_t bytes_ = 0;
};

}  // namespace sluice
