// data/loader/batch.h -- what one forward and backward pass reads.
#pragma once

#include <vector>

#include "kernels/tensor/buffer.h"

namespace sluice {

constexpr int32_t kNoTarget = -1;  // the ignore index of kernels/linear_cross_entropy

// What one forward and backward pass works on, of fixed size.
struct MicroBatch {
  Tensor tokens;      // [N] i32
  Tensor targets;     // [N] i32, kNoTarget in padding
  Tensor cu_seqlens;  // [max_documents + 1] i32, filled up with N
  int64_t valid_tokens = 0;
  int64_t step_valid_tokens = 0;  // of the whole global batch that it is a part of; in training
  int64_t longest = 0;            // no document has more tokens; 0: not known
};

// Writes cu_seqlens from the ends of the documents, in order; the last is N. Throws if they do not
// fit.
void set_documents(const std::vector<int32_t>& ends, MicroBatch& batch);

// Memory for one, on the host.
class MicroBatchBuffer {
 public:
  MicroBatchBuffer(int64_t tokens, int64_t max_documents, int64_t longest = 0);
  MicroBatch& batch() { return batch_; }

 private:
  Buffer tokens_, targets_, cu_seqlens_;
  MicroBatch batch_;
};

}  // namespace sluice
