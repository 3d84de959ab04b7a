// trainer/metrics/tensorboard.h -- scalars as TensorBoard event files: RUN/tensorboard/.
//
// A file is a list of TFRecords: length u64 | masked CRC-32C of it | payload | masked CRC-32C of
// it, little endian. A payload is a tensorflow.Event in protobuf's wire format; these fields of it:
//   Event {1 wall_time: double, 2 step: int64, 3 file_version: string, 5 summary, 7 session_log}
//   Summary {1 value*}   Value {1 tag: string, 2 simple_value: float}   SessionLog {1 status:
//   START}
// A process that resumes opens a new file and says START of its first step: readers then drop what
// earlier files have of that step and later ones, so that no step is shown twice.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trainer/metrics/append_file.h"

namespace sluice {

class TensorBoard {
 public:
  // The new file's name has a number that is one past the largest there: readers go by name, and a
  // wall clock may have been set back.
  TensorBoard(const std::string& folder, int64_t resume_step);

  void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

 private:
  std::unique_ptr<AppendFile> file_;
};

uint32_t crc32c(const std::string& bytes);          // Castagnoli
std::string tf_record(const std::string& payload);  // with its length and checksums
std::string version_event(double wall_seconds);     // the first one of a file
std::string start_event(double wall_seconds, int64_t step);
std::string scalars_event(double wall_seconds, int64_t step,
                          const std::vector<std::pair<std::string, double>>& scalars);

}  // namespace sluice
