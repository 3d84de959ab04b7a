// trainer/parallel/mesh.cpp -- groups are split off by the places of their ranks.
#include "trainer/parallel/mesh.h"

#include "kernels/base/check.h"

namespace sluice {

MeshShape mesh_shape(const ParallelConfig& c, int64_t ranks) {
  const int64_t others = c.data_replicate * c.context;
  const bool is_auto = c.data_shard == "auto";
  SLUICE_CHECK(!is_auto || ranks % others == 0, "parallel.data_replicate (", c.data_replicate,
               ") x parallel.context (", c.context, ") is ", others, ", which does not divide ",
               ranks, " ranks");
  const MeshShape m{.replicate = c.data_replicate,
                    .shard = is_auto ? ranks / others : std::stoll(c.data_shard),
                    .expert = c.expert,
                    .context = c.context};
  SLUICE_CHECK(m.ranks() == ranks, "parallel.data_replicate (", m.replicate,
               ") x parallel.data_shard (", m.shard, ") x parallel.context (", m.context, ") is ",
               m.ranks(), ", but there are ", ranks, " ranks");
  SLUICE_CHECK(m.replica() % m.expert == 0, "parallel.expert is ", m.expert,
               ", which does not divide parallel.data_shard x parallel.context (", m.replica(),
               ")");
  return m;
}

std::string to_string(const MeshShape& m) {
  return cat("replicate ", m.replicate, " x shard ", m.shard, " x context ", m.context, ", expert ",
             m.expert);
}

Mesh::Mesh(const MeshShape& shape, Comm& world)
    : shape_(shape), rank_(world.rank()), world_(&world) {
  SLUICE_CHECK(shape.ranks() == world.size(), "a mesh of ", to_string(shape), " over ",
               world.size(), " ranks");
  const int64_t first = replicate_rank() * shape.replica();  // of this replica
  const auto group = [&](int64_t color, const char* name) {
    return world.split(int(color), int(rank_), {.what = name});
  };
  replica_ = group(replicate_rank(), "replica");
  replicate_ = group(replica_rank(), "replicate");
  expert_ = group(first + expert_data_rank(), "expert");
  expert_data_ = group(first + expert_rank(), "expert_data");
  context_ = group(data_rank(), "context");
}

}  // namespace sluice
