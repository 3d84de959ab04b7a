// kernels/segment_scan/segment_scan.h -- the state that a sequence cut into segments has between
// two of them, from what each does to the state that enters it: S -> A S + B.
//
//   forward:  S = B_first;  S = A_p S + B_p      for p = first + 1 ... first + count - 1
//   reverse:  S = B_last;   S = A_p^T S + B_p    for p = last - 1 ... first, last = first + count -
//   1
//
// The segment that it starts with begins (reverse: ends) its document, so that its A is not read.
// Source: KDA's segment operators, kernels/kda/README.md. Dims: P segments, HV heads, K key dim, V
// value dim. T is f32 or f64 on the CPU, f32 on CUDA (K up to 256).
#pragma once

#include "kernels/tensor/context.h"

namespace sluice {

struct SegmentScan {
  Tensor operators;  // in  [P, HV * K * (V + K)] T: by segment B [HV, K, V], then A [HV, K, K]
  int64_t first, count;
  bool reverse = false;
  Tensor state;  // out [HV, K, V] T; 0 for count 0
};

void segment_scan(const Context& ctx, const SegmentScan& a);

// t [HV, K, K] T: 1 where row and column are one, else 0.
void set_identities(const Context& ctx, const Tensor& t);

}  // namespace sluice
