// trainer/loop/planned_groups.h -- who has which elements, without asking the ranks.
#pragma once

#include "optim/shard_groups.h"
#include "trainer/parallel/mesh.h"

namespace sluice {

// What shard_group() (optim/shard_groups.h) would hear in this rank's replica, from the layout
// alone: the groups have no communicators. Of one rank: none.
ShardGroups planned_groups(const ParamStore& params, const Mesh& mesh, Device device);

}  // namespace sluice
