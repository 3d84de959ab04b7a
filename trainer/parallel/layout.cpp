// trainer/parallel/layout.cpp -- parameters in the order in which they were added.
#include "trainer/parallel/layout.h"

#include <algorithm>

#include "model/autograd/plain_store.h"

namespace sluice {

// Experts are a kind of their own only where there are several groups of ranks for them; wide ones
// only where others are rounded.
static Segment::Kind kind_of(const ParamSpec& s, const MeshShape& mesh, bool rounds) {
  if (s.expert && mesh.expert > 1) return Segment::Kind::expert;
  return s.wide && rounds ? Segment::Kind::wide : Segment::Kind::dense;
}

ShardLayout::ShardLayout(const ParamStore& params, const Mesh& mesh, DType master, DType copy)
    : places(size_t(params.size())),
      groups(size_t(params.groups())),
      gathered(size_t(params.groups()), 0),
      gradients(size_t(params.groups()), 0) {
  using Kind = Segment::Kind;
  for (int g = 0; g < params.groups(); ++g)
    for (const Kind kind : {Kind::dense, Kind::wide, Kind::expert}) {
      std::vector<ParamId> ids;
      for (int i = 0; i < params.size(); ++i)
        if (params.spec({i}).group == g &&
            kind_of(params.spec({i}), mesh.shape(), master != copy) == kind)
          ids.push_back({i});
      if (!ids.empty()) add(params, mesh, g, kind, ids, master, kind == Kind::wide ? master : copy);
    }
}

void ShardLayout::add(const ParamStore& params, const Mesh& mesh, int group, Segment::Kind kind,
                      const std::vector<ParamId>& ids, DType master, DType value) {
  const bool expert = kind == Segment::Kind::expert;
  Segment s{.kind = kind,
            .group = group,
            .params = ids,
            .ranks = expert ? mesh.shape().expert_data() : mesh.shape().replica(),
            .rank = expert ? mesh.expert_data_rank() : mesh.replica_rank()};
  int64_t end = 0;
  for (const ParamId id : ids) {
    const ParamSpec& spec = params.spec(id);
    Place p{int(segments.size()), end, 0, spec.shape, spec.numel()};
    if (expert) {
      SLUICE_CHECK(spec.shape[0] % mesh.shape().expert == 0, spec.name, ": ", spec.shape[0],
                   " experts over parallel.expert (", mesh.shape().expert, ") ranks");
      p.shape[0] /= mesh.shape().expert;
      p.numel /= mesh.shape().expert;
      p.first = mesh.expert_rank() * p.numel;
    }
    end += aligned_shard(p.numel);
    places[size_t(id.index)] = p;
  }
  s.part = aligned_shard((end + s.ranks - 1) / s.ranks);
  s.at = elements;
  elements += s.part;
  if (s.cut()) {
    s.gathered = gathered[size_t(group)];
    s.gradient = gradients[size_t(group)];
    gathered[size_t(group)] += s.whole() * size_of(value);  // whole multiples of 256 bytes
    gradients[size_t(group)] += s.whole() * size_of(master);
    largest_part = std::max(largest_part, s.part);
  }
  groups[size_t(group)].push_back(int(segments.size()));
  segments.push_back(std::move(s));
}

ShardLayout::Range ShardLayout::owned(ParamId id) const {
  const Place& p = places.at(size_t(id.index));
  const Segment& s = segments[size_t(p.segment)];
  const int64_t begin = std::max(p.begin, s.rank * s.part);
  const int64_t end = std::min(p.begin + p.numel, (s.rank + 1) * s.part);
  return {std::min(begin, (s.rank + 1) * s.part), std::max<int64_t>(0, end - begin)};
}

}  // namespace sluice
