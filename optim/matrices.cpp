// optim/matrices.cpp -- a walk over experts and row blocks.
#include "optim/matrices.h"

namespace sluice {

std::vector<Matrix> matrices_of(const ParamSpec& spec, ParamId id) {
  const int64_t rank = int64_t(spec.shape.size());
  SLUICE_CHECK(rank == 2 || rank == 3, spec.name, " has rank ", rank, ", a matrix 2 or 3");
  const int64_t columns = spec.shape.back(), experts = rank == 3 ? spec.shape[0] : 1;
  std::vector<RowBlock> blocks = spec.row_blocks;
  if (blocks.empty()) blocks.push_back({spec.name, spec.shape[size_t(rank - 2)]});
  std::vector<Matrix> matrices;
  int64_t at = 0;
  for (int64_t e = 0; e < experts; ++e)
    for (const RowBlock& b : blocks) {
      matrices.push_back({id.index, at, b.rows, columns});
      at += b.rows * columns;
    }
  return matrices;
}

std::vector<MatrixRun> runs_of(const std::vector<Matrix>& matrices) {
  std::vector<MatrixRun> runs;
  int64_t at = 0;
  for (const Matrix& m : matrices) {
    if (!runs.empty() && runs.back().rows == m.rows && runs.back().columns == m.columns)
      ++runs.back().count;
    else
      runs.push_back({at, 1, m.rows, m.columns});
    at += m.numel();
  }
  return runs;
}

std::vector<MatrixRun> matrix_runs(const ParamSpec& spec, int64_t begin, int64_t numel) {
  const int64_t end = begin + numel;
  std::vector<Matrix> inside;
  for (const Matrix& m : matrices_of(spec, {})) {
    const int64_t last = m.begin + m.numel();
    if (last <= begin || m.begin >= end) continue;
    SLUICE_CHECK(m.begin >= begin && last <= end, spec.name, ": a matrix is elements ", m.begin,
                 " .. ", last, ", this rank's shard ", begin, " .. ", end,
                 "; Muon over ranks has to know of the others");
    inside.push_back(m);
  }
  return runs_of(inside);
}

}  // namespace sluice
