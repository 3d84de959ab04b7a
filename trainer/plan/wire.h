// trainer/plan/wire.h -- what one rank sends in a step: the formulas of FSDP, HSDP and Muon over
// ranks.
//
// Bytes are those that kernels/comm counts: given to other ranks, the least that any algorithm
// moves. N ranks that share P bytes: an all-gather and a reduce-scatter each send P (N - 1) / N, an
// all-reduce both.
#pragma once

#include <string>
#include <vector>

#include "optim/shard_groups.h"
#include "trainer/loop/config.h"
#include "trainer/parallel/layout.h"
#include "trainer/plan/figures.h"

namespace sluice {

struct WireRow {
  CommOp op = CommOp::barrier;
  std::string what;       // as the ledger of kernels/comm has it
  bool overlaps = false;  // runs beside the compute of another block
  int64_t calls = 0;      // a step
  int64_t bytes = 0;      // a step, sent by this rank to other ranks
  // Where they go: over the links of this node, and this rank's share of what its node sends out.
  double inside = 0, between = 0;
};

// Of the ranks of a group, how many there are and how many of them are in this rank's node.
struct GroupPlace {
  int64_t ranks = 1, in_node = 1;
};
struct GroupPlaces {
  GroupPlace world, replica, replicate, expert, expert_data;
};
GroupPlaces group_places(const Mesh& mesh, int64_t ranks_per_node);

// Sends `bytes` by its place: an all-gather passes a node's boundary once for all ranks in it, what
// goes from each rank to each other one does for each of them.
enum class Route : uint8_t { once_a_node, rank_to_rank };
void place_bytes(WireRow& row, const GroupPlace& place, Route route);

struct WireInput {
  const ParamStore& params;
  const ShardLayout& layout;
  const ShardGroups& groups;
  const Mesh& mesh;
  const Config& config;
  int64_t ranks_per_node;
  int64_t micro_batches;  // of this rank in a step
  DType value;            // that weights are gathered in; gradients and masters are f32
};
std::vector<WireRow> wire_of_step(const WireInput& in);

// How often each group is gathered in a step: what the pass before has left is not gathered again.
std::vector<int64_t> gathers_by_group(const ParamStore& params, const LmConfig& model, bool reshard,
                                      int64_t micro_batches);

double seconds(const WireRow& row, const Figures& f);

}  // namespace sluice
