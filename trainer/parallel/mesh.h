// trainer/parallel/mesh.h -- how the ranks of a run are arranged, and their groups.
//
//   rank = (replicate * shard + shard index) * context + context index
//
// A replica is one whole model: shard x context consecutive ranks. All of them cut its dense
// parameters, and read different tokens. `expert` consecutive ranks of a replica share out the
// experts of each layer; the ranks of a replica that have the same experts cut those once more.
#pragma once

#include <memory>
#include <string>

#include "kernels/comm/comm.h"
#include "trainer/parallel/config.h"

namespace sluice {

struct MeshShape {
  int64_t replicate = 1, shard = 1, expert = 1, context = 1;

  int64_t replica() const { return shard * context; }         // ranks of one
  int64_t expert_data() const { return replica() / expert; }  // of them, those with equal experts
  int64_t ranks() const { return replicate * replica(); }
};

// Throws, naming the keys, if they do not fit this number of ranks.
MeshShape mesh_shape(const ParallelConfig& config, int64_t ranks);
std::string to_string(const MeshShape& shape);  // "replicate 2 x shard 4 x context 1, expert 2"

// One rank's place. A planned mesh has no communicators.
class Mesh {
 public:
  Mesh(const MeshShape& shape, int64_t rank) : shape_(shape), rank_(rank) {}
  Mesh(const MeshShape& shape, Comm& world);  // all ranks at the same time

  const MeshShape& shape() const { return shape_; }
  int64_t rank() const { return rank_; }
  int64_t replica_rank() const { return rank_ % shape_.replica(); }
  int64_t replicate_rank() const { return rank_ / shape_.replica(); }
  int64_t expert_rank() const { return replica_rank() % shape_.expert; }
  int64_t expert_data_rank() const { return replica_rank() / shape_.expert; }
  int64_t context_rank() const { return rank_ % shape_.context; }
  // Who reads which rows: the ranks of a context group read the same ones.
  int64_t data_rank() const { return rank_ / shape_.context; }
  int64_t data_ranks() const { return shape_.ranks() / shape_.context; }

  // A group is used by one thread at a time.
  Comm& world() const { return *world_; }
  Comm& replica() const { return *replica_; }          // cuts the dense parameters
  Comm& replicate() const { return *replicate_; }      // has the same shards
  Comm& expert() const { return *expert_; }            // shares out the experts
  Comm& expert_data() const { return *expert_data_; }  // cuts the same experts
  Comm& context() const { return *context_; }

 private:
  MeshShape shape_;
  int64_t rank_;
  Comm* world_ = nullptr;
  std::unique_ptr<Comm> replica_, replicate_, expert_, expert_data_, context_;
};

}  // namespace sluice
