// optim/muon_plan.h -- matrices that lie on several ranks: which rank orthogonalises which, and
// which elements travel for it.
//
// Every matrix has one owner among the ranks of its ShardGroup. A matrix that lies on one rank
// stays there while that rank has less than its share of the cost; the others go, the costly first,
// to the rank with the least. So no rank has more than the mean and one matrix, and all ranks
// compute the same plan.
//
// The work is cut into rounds, so that memory is bounded: in each an owner takes its next matrices,
// of kRoundElements at most. Matrices of one shape follow each other, for one call.
#pragma once

#include "optim/matrices.h"
#include "optim/shard_groups.h"

namespace sluice {

constexpr int64_t kRoundElements = int64_t(1) << 25;  // that an owner takes, one matrix at least

struct OwnedMatrix {
  Matrix is;
  int owner;  // rank of the group
};

// One rank's part of a round. Three flat buffers: what it gives (elements of its shards, by owner),
// what it gets (of the matrices that it owns, by rank), and those matrices.
struct MuonRound {
  struct Piece {    // follows the one before in the first buffer
    int param;      // ParamId::index
    int64_t begin;  // element of the parameter
    int64_t count;
    int64_t longer;  // of its matrix
  };
  struct Move {
    int64_t from, to, count;  // elements of the second buffer, of the third
  };
  std::vector<Piece> pieces;
  std::vector<int64_t> gives, gets;  // [ranks] elements
  std::vector<Move> moves;
  std::vector<MatrixRun> runs;  // of the third buffer
  int64_t given = 0, got = 0;   // elements of the buffers; the second and the third are as large
};

struct MuonPlan {
  std::vector<OwnedMatrix> matrices;  // of all ranks, by parameter
  std::vector<MuonRound> rounds;      // of this one
  std::vector<int64_t> costs;         // [ranks] FLOPs of an iteration
};

// Of `matrices`, those of the group. A matrix that the ranks have in part is an Error.
MuonPlan plan_muon(const std::vector<Matrix>& matrices, const ShardGroup& group,
                   const ParamStore& params, int64_t round_elements = kRoundElements);

}  // namespace sluice
