// trainer/loop/planned_groups.cpp -- the layout of every rank of a replica.
#include "trainer/loop/planned_groups.h"

#include "trainer/parallel/layout.h"

namespace sluice {

static std::vector<ElementRange> ranges_of(const ParamStore& params, const ShardLayout& layout) {
  std::vector<ElementRange> ranges;
  for (int i = 0; i < params.size(); ++i) {
    const ShardLayout::Place& p = layout.places[size_t(i)];
    const ShardLayout::Range own = layout.owned({i});
    const int64_t begin = p.first + (own.count > 0 ? own.begin - p.begin : 0);
    ranges.push_back({begin, begin + own.count});
  }
  return ranges;
}

ShardGroups planned_groups(const ParamStore& params, const Mesh& mesh, Device device) {
  const MeshShape& shape = mesh.shape();
  ShardGroups groups;
  if (shape.replica() == 1) return groups;
  const int64_t first = mesh.replicate_rank() * shape.replica();
  groups.weights.rank = int(mesh.replica_rank());
  groups.experts.rank = int(mesh.expert_data_rank());
  for (int64_t r = 0; r < shape.replica(); ++r) {
    const Mesh other(shape, first + r);
    const ShardLayout layout(params, other, DType::f32,
                             device == Device::cuda ? DType::bf16 : DType::f32);
    std::vector<ElementRange> ranges = ranges_of(params, layout);
    if (other.expert_rank() == mesh.expert_rank()) groups.experts.ranges.push_back(ranges);
    groups.weights.ranges.push_back(std::move(ranges));
  }
  return groups;
}

}  // namespace sluice
