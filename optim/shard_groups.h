// optim/shard_groups.h -- over which ranks parameters are cut, and who has which part.
#pragma once

#include <vector>

#include "kernels/comm/comm.h"
#include "model/autograd/param_store.h"

namespace sluice {

// Elements begin .. end of a parameter, flat.
struct ElementRange {
  int64_t begin = 0, end = 0;
};

// Ranks whose shards together are whole parameters, none twice. Replicas are groups of their own.
struct ShardGroup {
  Comm* comm = nullptr;  // null: one rank, or a plan
  int rank = 0;
  std::vector<std::vector<ElementRange>> ranges{};  // [rank][ParamId::index]; none: one rank

  int size() const { return ranges.empty() ? 1 : int(ranges.size()); }
};

// Experts are cut over the expert ranks first: those that share a rank's experts are their group.
struct ShardGroups {
  ShardGroup weights, experts;

  const ShardGroup& of(const ParamSpec& spec) const { return spec.expert ? experts : weights; }
};

// Asks the ranks of `comm` what they have of the parameters with ParamSpec::expert == experts.
ShardGroup shard_group(Comm& comm, const ParamStore& params, bool experts);

}  // namespace sluice
