// trainer/loop/inspect.h -- what is in a checkpoint, in a run's checkpoints, or in other engines'
// files (inspect_files.h); broken ones too.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "trainer/checkpoint/checkpoint.h"

namespace sluice {

struct InspectOptions {
  Verify list = Verify::sizes;  // of a run's other checkpoints; the one that is shown is read whole
  std::function<void(int64_t bytes_done, int64_t bytes)> progress = [](int64_t, int64_t) {};
};

// {"path", "run": {"checkpoints": [{"folder", "step", "state", "milestone", "bytes", "problems"}]},
//  "checkpoint": {"folder", "step", "state", "problems", "bytes", "saved_at", "fingerprint",
//  "integers",
//                 "numbers", "config": [{"key", "value", "default"}], "weights": PART, "optimizer":
//                 PART}}
// PART: {"bytes", "elements", "tensors": [{"name", "type", "checksum", "nonfinite", "norm", "min",
// "max"}]}. `path` as find_checkpoint() takes it; "run" is null if it names one checkpoint. Of a
// broken one, whatever can be read is there. Throws if there is nothing at all.
nlohmann::ordered_json inspect(const std::string& path, const InspectOptions& options);

std::string inspect_text(const nlohmann::ordered_json& report);  // for people

}  // namespace sluice
