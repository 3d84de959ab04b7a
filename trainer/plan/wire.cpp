// trainer/plan/wire.cpp -- a row a segment and direction.
#include "trainer/plan/wire.h"

#include <algorithm>

#include "model/autograd/step_stats.h"
#include "optim/muon_plan.h"

namespace sluice {

// Nodes have consecutive ranks; a group is `ranks` of them from `first` on, `stride` apart.
static GroupPlace place_of(int64_t rank, int64_t first, int64_t stride, int64_t ranks,
                           int64_t ranks_per_node) {
  GroupPlace p{.ranks = ranks, .in_node = 0};
  for (int64_t i = 0; i < ranks; ++i)
    p.in_node += (first + i * stride) / ranks_per_node == rank / ranks_per_node;
  return p;
}

GroupPlaces group_places(const Mesh& mesh, int64_t ranks_per_node) {
  const MeshShape& s = mesh.shape();
  const int64_t rank = mesh.rank(), replica = mesh.replicate_rank() * s.replica();
  const auto place = [&](int64_t first, int64_t stride, int64_t ranks) {
    return place_of(rank, first, stride, ranks, ranks_per_node);
  };
  return {.world = place(0, 1, s.ranks()),
          .replica = place(replica, 1, s.replica()),
          .replicate = place(mesh.replica_rank(), s.replica(), s.replicate),
          .expert = place(replica + mesh.expert_data_rank() * s.expert, 1, s.expert),
          .expert_data = place(replica + mesh.expert_rank(), s.expert, s.expert_data())};
}

void place_bytes(WireRow& row, const GroupPlace& p, Route route) {
  if (p.ranks <= 1) return;
  const double out = double(row.bytes) * double(p.ranks - p.in_node) / double(p.ranks - 1);
  if (route == Route::rank_to_rank) {
    row.inside += double(row.bytes) - out;
    row.between += out;
  } else {  // round all ranks of a node and then on
    row.inside += p.in_node > 1 ? double(row.bytes) : 0;
    row.between += out / double(p.in_node);
  }
}

std::vector<int64_t> gathers_by_group(const ParamStore& params, const LmConfig& model, bool reshard,
                                      int64_t micro_batches) {
  const int64_t G = params.groups(), M = micro_batches;
  std::vector<int64_t> gathers(size_t(G), reshard ? 2 * M : std::min<int64_t>(M, 1));
  if (!reshard || M == 0) return gathers;
  // As many groups stay from one pass to the next as are held at once, and one more.
  const int64_t stay = model.tie_word_embeddings ? 3 : 2;
  if (G <= stay) return std::vector<int64_t>(size_t(G), 1);
  for (int64_t g = 0; g < stay; ++g) {
    gathers[size_t(G - 1 - g)] -= M;  // at the turn from forward to backward
    gathers[size_t(g)] -= M - 1;      // and from one micro-batch to the next
  }
  return gathers;
}

// Sums in rank order are made of what each rank sends to each.
static Route reduce_route(const Config& c) {
  return c.run.determinism == "fast" ? Route::once_a_node : Route::rank_to_rank;
}

static const char* kind_name(Segment::Kind kind) {
  return kind == Segment::Kind::expert ? " experts"
         : kind == Segment::Kind::wide ? " wide"
                                       : " weights";
}

static WireRow row_of(CommOp op, std::string what, int64_t calls, int64_t bytes) {
  WireRow r;
  r.op = op;
  r.what = std::move(what);
  r.calls = calls;
  r.bytes = bytes;
  return r;
}

static void add_fsdp(const WireInput& in, const GroupPlaces& places, std::vector<WireRow>& rows) {
  const ParallelConfig& parallel = in.config.parallel;
  const std::vector<int64_t> gathers = gathers_by_group(
      in.params, in.config.model, parallel.reshard_after_forward, in.micro_batches);
  const int64_t reduces = parallel.unsharded_gradients ? 1 : in.micro_batches;
  for (const Segment& s : in.layout.segments) {
    if (!s.cut()) continue;
    const bool wide = s.kind == Segment::Kind::wide;
    const GroupPlace& place = s.kind == Segment::Kind::expert ? places.expert_data : places.replica;
    const std::string what = in.params.group_name(s.group) + kind_name(s.kind);
    const auto add = [&](CommOp op, int64_t calls, DType type, Route route) {
      rows.push_back(row_of(op, what, calls, calls * (s.ranks - 1) * s.part * size_of(type)));
      rows.back().overlaps = true;
      place_bytes(rows.back(), place, route);
    };
    add(CommOp::all_gather, gathers[size_t(s.group)], wide ? DType::f32 : in.value,
        Route::once_a_node);
    add(CommOp::reduce_scatter, reduces, DType::f32, reduce_route(in.config));
  }
}

// An all-reduce of `t` over all ranks of a group: each sums its part and gives it to the others.
static void add_all_reduce(CommOp op, const std::string& what, const Tensor& t, int64_t rank,
                           const GroupPlace& place, Route reduce, std::vector<WireRow>& rows) {
  if (place.ranks == 1) return;
  const int64_t bytes = bytes_sent({.op = op, .in = t}, int(rank), place.ranks);
  WireRow& r = rows.emplace_back(row_of(op, what, 1, bytes));
  for (const Route route : {reduce, Route::once_a_node}) {
    WireRow half = row_of(op, what, 1, bytes / 2);
    place_bytes(half, place, route);
    r.inside += half.inside;
    r.between += half.between;
  }
}

static void add_sums(const WireInput& in, const GroupPlaces& places, std::vector<WireRow>& rows) {
  const auto numbers = [](DType type, int64_t n) {
    return make_tensor(nullptr, type, Device::cpu, {n});
  };
  const auto add = [&](CommOp op, const char* what, const Tensor& t) {
    if (t) add_all_reduce(op, what, t, in.mesh.rank(), places.world, Route::rank_to_rank, rows);
  };
  add_all_reduce(CommOp::all_reduce_sum, "gradients", numbers(DType::f32, in.layout.elements),
                 in.mesh.replicate_rank(), places.replicate, reduce_route(in.config), rows);
  const StepStats stats(in.params);
  add(CommOp::all_reduce_sum, "losses", numbers(DType::f64, 2));
  add(CommOp::all_reduce_max, "stop signal", numbers(DType::i32, 1));
  add(CommOp::all_reduce_sum, "expert counts", stats.expert_counts());
  add(CommOp::all_reduce_max, "attention logits", stats.max_logits());
  add(CommOp::all_reduce_sum, "gradient norm", numbers(DType::f64, 1));
}

// U to the owners and X back, as optim/muon_round.cpp sends them.
static void add_muon(const WireInput& in, const ShardGroup& group, bool experts,
                     const GroupPlace& place, std::vector<WireRow>& rows) {
  if (in.config.optim.kind != "muon" || group.size() == 1) return;
  std::vector<Matrix> matrices;
  for (int i = 0; i < in.params.size(); ++i) {
    const ParamSpec& spec = in.params.spec({i});
    if (!spec.matrix || spec.expert != experts) continue;
    for (const Matrix& m : matrices_of(spec, {i})) matrices.push_back(m);
  }
  WireRow momentum = row_of(CommOp::all_to_all_v, "muon momentum", 0, 0),
          update = row_of(CommOp::all_to_all_v, "muon update", 0, 0);
  const auto others = [&](const std::vector<int64_t>& counts) {
    int64_t n = -counts[size_t(group.rank)];
    for (const int64_t c : counts) n += c;
    return n * size_of(in.value);
  };
  for (const MuonRound& r : plan_muon(matrices, group, in.params).rounds) {
    ++momentum.calls, ++update.calls;
    momentum.bytes += others(r.gives);
    update.bytes += others(r.gets);
  }
  for (WireRow* row : {&momentum, &update}) {
    place_bytes(*row, place, Route::rank_to_rank);
    rows.push_back(*row);
  }
}

std::vector<WireRow> wire_of_step(const WireInput& in) {
  const GroupPlaces places = group_places(in.mesh, in.ranks_per_node);
  std::vector<WireRow> rows;
  add_fsdp(in, places, rows);
  add_sums(in, places, rows);
  add_muon(in, in.groups.weights, false, places.replica, rows);
  add_muon(in, in.groups.experts, true, places.expert_data, rows);
  return rows;
}

double seconds(const WireRow& r, const Figures& f) {
  const double latency = r.between > 0 ? f.between.latency_seconds : f.inside.latency_seconds;
  return double(r.calls) * latency +
         std::max(r.inside / f.inside.bytes_per_second, r.between / f.between.bytes_per_second);
}

}  // namespace sluice
