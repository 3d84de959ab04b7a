// optim/matrices.h -- the matrices that Muon orthogonalises, each by itself.
#pragma once

#include <string>
#include <vector>

#include "model/autograd/param_store.h"

namespace sluice {

struct Matrix {
  int param;      // ParamId::index
  int64_t begin;  // element of the parameter
  int64_t rows, columns;

  int64_t numel() const { return rows * columns; }
  int64_t longer() const { return rows > columns ? rows : columns; }
  // FLOPs of a Newton-Schulz iteration.
  int64_t cost() const {
    const int64_t s = rows < columns ? rows : columns;
    return 4 * s * s * longer() + 2 * s * s * s;
  }
};

// Of a parameter with ParamSpec::matrix: its row blocks, in each expert.
std::vector<Matrix> matrices_of(const ParamSpec& spec, ParamId id);

// Matrices of one shape that follow each other in flat memory.
struct MatrixRun {
  int64_t begin;  // element
  int64_t count, rows, columns;

  int64_t numel() const { return count * rows * columns; }
};

// Of matrices that lie one after the other from element 0 on.
std::vector<MatrixRun> runs_of(const std::vector<Matrix>& matrices);
// Those of a shard, in its elements. One that cuts a matrix is an Error.
std::vector<MatrixRun> matrix_runs(const ParamSpec& spec, int64_t begin, int64_t numel);

}  // namespace sluice
