// optim/shard_groups.cpp -- one all_gather.
#include "optim/shard_groups.h"

#include "kernels/tensor/buffer.h"

namespace sluice {

ShardGroup shard_group(Comm& comm, const ParamStore& params, bool experts) {
  const int64_t P = params.size(), N = comm.size();
  const Buffer mine(DType::i64, {P, 2}), all(DType::i64, {N * P, 2});
  for (const Shard& s : params.shards()) {
    if (params.spec(s.id).expert != experts) continue;
    int64_t* range = mine.view().row<int64_t>(s.id.index);
    range[0] = s.begin;
    range[1] = s.begin + s.master.dim(0);
  }
  comm.all_gather(mine.view(), all.view(), {.what = "ranges of shards"});
  ShardGroup group{.comm = &comm, .rank = comm.rank()};
  for (int64_t r = 0; r < N; ++r) {
    auto& ranges = group.ranges.emplace_back();
    for (int64_t p = 0; p < P; ++p) {
      const int64_t* range = all.view().row<int64_t>(r * P + p);
      ranges.push_back({range[0], range[1]});
    }
  }
  return group;
}

}  // namespace sluice
