// trainer/checkpoint/writer.h -- the checkpoints of a run, written while it goes on.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/shared_save.h"

namespace sluice {

// What became of one save.
struct SaveReport {
  int64_t step = 0;
  std::string folder;
  std::string error;                  // not empty: no checkpoint was made, and why
  std::vector<std::string> problems;  // old checkpoints that could not be removed
  int64_t bytes = 0;                  // of the tensors, of all ranks
  double blocked_seconds = 0;         // the caller of save(), waited_seconds included
  double waited_seconds = 0;          // for the save before this one
  double write_seconds = 0;           // from the first byte to the last old checkpoint's removal
};

// async: save() copies the tensors into a snapshot, which is taken once, and a thread writes that;
// one save at a time, the next one waits for it. sync: save() writes. Both write the same bytes.
// No failure of a save throws: it is in the report, and until somebody has collected that, the
// destructor prints it. Methods are for one thread.
//
// Of many ranks, save(), collect() and finish() are collectives, and reports are the same on all.
// Threads write, but only the caller talks to other ranks: collectives keep one order, nobody needs
// a second communicator, and a slow disk is no collective that hangs: whoever waits for another
// rank's files asks again and again. So a save of many ranks is published by a later call.
class CheckpointWriter {
 public:
  enum class Mode : uint8_t { sync, async };

  // The tensors of a run, alive and in place as long as the writer is. Makes the folder and writes
  // something there, so that one that is read-only is an Error now and not at the first save.
  CheckpointWriter(const std::string& run_dir, const Retention& retention, Mode mode,
                   std::vector<NamedTensor> weights, std::vector<NamedTensor> optimizer,
                   Comm* ranks = nullptr);
  // Waits for its own thread: no process exits in the middle of a file. Talks to nobody.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  int64_t snapshot_bytes() const;  // of this rank; 0 if sync and on the host

  void save(const CheckpointMeta& meta);
  std::vector<SaveReport> collect();  // of saves that ended since the last call; waits for nothing
  std::vector<SaveReport> finish();   // waits for the one under way

 private:
  // What thread_ is at. One rank publishes what it writes.
  enum class Phase : uint8_t { none, writing, publishing };

  bool direct() const;  // from the memory that training works in: sync, and on the host
  bool open_shared(const CheckpointMeta& meta);  // false: the save has failed
  void start(Phase phase, std::function<void()> work);
  void keep(SaveResult result);
  bool advance();  // true: no save is under way any more
  void tell_report();
  void wait();

  std::string run_dir_;
  Retention retention_;
  Mode mode_;
  std::vector<NamedTensor> weights_, optimizer_;
  Buffer snapshot_;                                                 // u8
  std::vector<NamedTensor> snapshot_weights_, snapshot_optimizer_;  // in it
  std::unique_ptr<SharedSave> shared_;                              // of many ranks
  Comm* ranks_ = nullptr;
  Phase phase_ = Phase::none;
  double begun_ = 0;  // seconds, when thread_ began to write
  std::thread thread_;
  std::atomic<bool> done_{false};  // thread_ has nothing left to do but end
  SaveReport current_;             // thread_'s until it is joined
  std::vector<SaveReport> finished_;
};

}  // namespace sluice
