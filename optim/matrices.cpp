// optim/matrices.cpp -- a walk over experts and row blocks.
#include "optim/matrices.h"

namespace sluice {

std::vector<MatrixRun> matrix_runs(const ParamSpec& spec, int64_t begin, int64_t numel) {
  const int64_t rank = int64_t(spec.shape.size());
  SLUICE_CHECK(rank == 2 || rank == 3, spec.name, " has rank ", rank, ", a matrix 2 or 3");
  const int64_t columns = spec.shape.back(), experts = rank == 3 ? spec.shape[0] : 1;
  std::vector<RowBlock> blocks = spec.row_blocks;
  if (blocks.empty()) blocks.push_back({spec.name, spec.shape[size_t(rank - 2)]});
  const int64_t end = begin + numel;
  std::vector<MatrixRun> runs;
  int64_t at = 0;  // first element of the matrix
  for (int64_t e = 0; e < experts; ++e)
    for (const RowBlock& b : blocks) {
      const int64_t first = at, last = at += b.rows * columns;
      if (last <= begin || first >= end) continue;
      SLUICE_CHECK(first >= begin && last <= end, spec.name, ": matrix ", b.name, " is elements ",
                   first, " .. ", last, ", this rank's shard ", begin, " .. ", end,
                   "; Muon takes whole matrices");
      if (!runs.empty() && runs.back().rows == b.rows)
        ++runs.back().count;
      else
        runs.push_back({first - begin, 1, b.rows, columns});
    }
  return runs;
}

}  // namespace sluice
