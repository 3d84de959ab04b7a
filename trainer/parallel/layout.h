// trainer/parallel/layout.h -- where the parameters of each group lie, whole and cut.
//
// A segment is one flat buffer: parameters of a group that are gathered together, each beginning on
// kShardAlign elements, the whole cut into equal parts, one a rank. So an all-gather writes it as
// it is used, and what a rank owns of a parameter is one range. A pure function of the specs and
// the mesh: no communicator, no memory.
#pragma once

#include <vector>

#include "model/autograd/param_store.h"
#include "trainer/parallel/mesh.h"

namespace sluice {

struct Segment {
  // wide: f32 although others are bf16; expert: cut over the ranks that have the same experts.
  enum class Kind : uint8_t { dense, wide, expert };
  Kind kind = Kind::dense;
  int group = 0;
  std::vector<ParamId> params;
  int64_t ranks = 1, rank = 0;  // of the group that it is cut over
  int64_t part = 0;             // elements a rank, padding included
  int64_t at = 0;               // where this rank's part begins in the buffers of all shards
  int64_t gathered = 0;         // where it begins among the gathered values of its group, bytes
  int64_t gradient = 0;         // and among the whole gradients

  int64_t whole() const { return ranks * part; }
  bool cut() const { return ranks > 1; }  // else its shard is the whole
};

struct ShardLayout {
  ShardLayout() = default;
  ShardLayout(const ParamStore& params, const Mesh& mesh, DType master, DType copy);

  // Of a parameter.
  struct Place {
    int segment;
    int64_t begin;               // in the whole segment
    int64_t first;               // its element that is the first on these ranks: of the experts
    std::vector<int64_t> shape;  // on these ranks
    int64_t numel;
  };
  std::vector<Segment> segments;         // by group, then by kind
  std::vector<Place> places;             // by ParamId::index
  std::vector<std::vector<int>> groups;  // its segments
  int64_t elements = 0;                  // of this rank's shards
  // Bytes of each group's cut segments.
  std::vector<int64_t> gathered, gradients;
  int64_t largest_part = 0;  // of a cut segment, elements

  // Of the parameter, the elements in this rank's part of its segment: begin .. begin + count,
  // counted from the segment's begin.
  struct Range {
    int64_t begin, count;
  };
  Range owned(ParamId id) const;

 private:
  void add(const ParamStore& params, const Mesh& mesh, int group, Segment::Kind kind,
           const std::vector<ParamId>& ids, DType master, DType value);
};

}  // namespace sluice
