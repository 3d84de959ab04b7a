// trainer/checkpoint/writer.h -- the checkpoints of a run, written while it goes on.
#pragma once

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "trainer/checkpoint/checkpoint.h"

namespace sluice {

// What became of one save.
struct SaveReport {
  int64_t step = 0;
  std::string folder;
  std::string error;                  // not empty: no checkpoint was made, and why
  std::vector<std::string> problems;  // old checkpoints that could not be removed
  int64_t bytes = 0;                  // of the tensors
  double blocked_seconds = 0;         // the caller of save(), waited_seconds included
  double waited_seconds = 0;          // for the save before this one
  double write_seconds = 0;           // from the first byte to the last old checkpoint's removal
};

// async: save() copies the tensors into a snapshot, which is taken once, and a thread writes that;
// one save at a time, the next one waits for it. sync: save() writes. Both write the same bytes.
// No failure of a save throws: it is in the report, and until somebody has collected that, the
// destructor prints it. Methods are for one thread.
class CheckpointWriter {
 public:
  enum class Mode : uint8_t { sync, async };

  // The tensors of a run, alive and in place as long as the writer is. Makes the folder and writes
  // something there, so that one that is read-only is an Error now and not at the first save.
  CheckpointWriter(const std::string& run_dir, const Retention& retention, Mode mode,
                   std::vector<NamedTensor> weights, std::vector<NamedTensor> optimizer);
  ~CheckpointWriter();  // waits: no process exits with a save under way
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  int64_t snapshot_bytes() const;  // 0 if sync and on the host

  void save(const CheckpointMeta& meta);
  std::vector<SaveReport> collect();  // of saves that ended since the last call; waits for nothing
  std::vector<SaveReport> finish();   // waits for the one under way

 private:
  void write(const CheckpointMeta& meta, const std::vector<NamedTensor>& weights,
             const std::vector<NamedTensor>& optimizer);
  bool direct() const;  // from the memory that training works in: sync, and on the host
  void join();

  std::string run_dir_;
  Retention retention_;
  Mode mode_;
  std::vector<NamedTensor> weights_, optimizer_;
  Buffer snapshot_;                                                 // u8
  std::vector<NamedTensor> snapshot_weights_, snapshot_optimizer_;  // in it
  std::thread thread_;
  std::atomic<bool> done_{false};  // thread_ has nothing left to do but end
  SaveReport current_;             // thread_'s until it is joined
  std::vector<SaveReport> finished_;
};

}  // namespace sluice
