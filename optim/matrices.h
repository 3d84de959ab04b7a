// optim/matrices.h -- the matrices that Muon orthogonalises, each by itself.
#pragma once

#include <vector>

#include "model/autograd/param_store.h"

namespace sluice {

// Matrices of one shape that follow each other in a shard.
struct MatrixRun {
  int64_t begin;  // element of the shard
  int64_t count, rows, columns;

  int64_t numel() const { return count * rows * columns; }
};

// Those of elements begin .. begin + numel of a parameter: its row blocks, in each expert. A range
// that cuts a matrix is an Error: orthogonalising needs the whole.
std::vector<MatrixRun> matrix_runs(const ParamSpec& spec, int64_t begin, int64_t numel);

}  // namespace sluice
