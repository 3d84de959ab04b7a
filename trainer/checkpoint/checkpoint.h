// trainer/checkpoint/checkpoint.h -- checkpoints to resume from, which no kill can break.
//
// RUN/checkpoints/step-00000400/
//   weights.safetensors, optimizer.safetensors   full tensors; of a run of many ranks
//   weights-00003-of-00008.safetensors, ...      what rank 3 has of them (shared_save.h)
//   config.yaml                                  the resolved config
//   manifest.json                                step, state, sizes and CRC-32 of the files above
//
// A start: RunLock, remove_leftovers, find_newest_valid, load_meta, load_tensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor/tensor.h"
#include "trainer/checkpoint/run_lock.h"

namespace sluice {

class Comm;  // kernels/comm/comm.h

// Everything of a run that is no tensor.
struct CheckpointMeta {
  int64_t step = 0;         // steps done
  std::string config_yaml;  // resolved
  std::map<std::string, std::string>
      fingerprint;                          // of bitwise equality: build, ISA, libraries, ...
  std::map<std::string, int64_t> integers;  // seed, loader position, tokens seen, ...
  std::map<std::string, double> numbers;    // validation losses, ...; NaN and inf too
};

// A dense tensor on the host; with `whole`, elements begin .. begin + t.numel() of one that several
// ranks have parts of.
struct NamedTensor {
  std::string name;
  Tensor t;
  std::vector<int64_t> whole{};  // shape of the whole tensor; empty: t is it
  int64_t begin = 0;
};

struct Retention {
  int64_t keep_last = 3;                                   // at least 1
  std::optional<int64_t> keep_every_steps = std::nullopt;  // these stay forever
};

enum class Part { weights, optimizer };

// sizes: the manifest is intact, the files have their sizes and the tensors their types. contents:
// and all bytes their checksums, and every number is finite; this reads everything.
enum class Verify { sizes, contents };

struct CheckpointRef {
  std::string folder;
  int64_t step = 0;
};

struct SaveResult {
  CheckpointRef saved;
  std::vector<std::string> problems;  // old checkpoints that could not be removed
};

// Publishes RUN/checkpoints/step-<meta.step>, on the disk when this returns, and then removes older
// ones. If it throws, the old ones are as they were, and there is no new one (or, if what failed
// was the fsync after its publication, one that a loss of power may take away). One caller at a
// time for a run. A checkpoint of the same step is replaced in one step (the caller went back and
// came here again, so the new state is the one that its future belongs to).
SaveResult save_checkpoint(const std::string& run_dir, const CheckpointMeta& meta,
                           std::span<const NamedTensor> weights,
                           std::span<const NamedTensor> optimizer, const Retention& retention);

// The newest checkpoint that is intact. Every newer one that is not adds its problems ("folder:
// file: expected, actual") to `problems`, which the caller must show. No checkpoint but problems:
// starting from scratch would be wrong. With `ranks` a collective: they share the reading, and all
// get the same answer.
std::optional<CheckpointRef> find_newest_valid(const std::string& run_dir,
                                               std::vector<std::string>* problems,
                                               Verify verify = Verify::contents,
                                               Comm* ranks = nullptr);

// What is wrong with one checkpoint; empty if nothing is.
std::vector<std::string> find_problems(const CheckpointRef& ref, Verify verify);

// What a user named: one checkpoint's folder, which must be intact; or a run's folder, its
// checkpoints/ or checkpoints/latest: the newest intact one, `problems` as above. Throws if none
// is.
CheckpointRef find_checkpoint(const std::string& path, std::vector<std::string>* problems,
                              Comm* ranks = nullptr);

CheckpointMeta load_meta(const CheckpointRef& ref);

// Fills the tensors of `into`, from the files of any number of ranks. Names, dtypes and shapes of
// the whole tensors must be exactly those of the checkpoint; what was saved in one piece and is
// loaded as a whole has its checksum; otherwise throws, and `into` is in part overwritten.
void load_tensors(const CheckpointRef& ref, Part part, std::span<const NamedTensor> into);

// The .safetensors file of a checkpoint of one rank. CheckpointTensors (tensors.h) reads any.
std::string file_of(const CheckpointRef& ref, Part part);

// Removes what interrupted saves have left. The lock proves that no save is under way.
void remove_leftovers(const RunLock& lock);

}  // namespace sluice
