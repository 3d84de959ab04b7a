// trainer/plan/plan.cpp -- a store, a model and an optimizer that are only planned, and sums.
#include "trainer/plan/plan.h"

#include <algorithm>

#include "model/lm/cost.h"
#include "optim/groups.h"
#include "optim/matrices.h"
#include "trainer/loop/device.h"
#include "trainer/loop/planned_groups.h"

namespace sluice {

// FLOPs of the iterations over all matrices of a parameter: a Gram matrix (2 s^2 l), its square
// (2 s^3) and a product with X (2 s^2 l) each.
static double newton_schulz_flops(const ParamSpec& spec, int64_t ns_steps) {
  double flops = 0;
  for (const MatrixRun& r : matrix_runs(spec, 0, spec.numel())) {
    const double s = double(std::min(r.rows, r.columns)), l = double(std::max(r.rows, r.columns));
    flops += double(r.count * ns_steps) * (4 * s * s * l + 2 * s * s * s);
  }
  return flops;
}

// What the update reads and writes of each element of this rank's shards: the norm reads the
// gradient once more.
static UpdateWork update_work(const OptimConfig& optim, const ParamStore& params,
                              int64_t sharing_ranks) {
  UpdateWork w;
  const double state = optim.state_dtype == "bf16" ? 2 : 4;
  const std::vector<Shard> shards = params.trained_shards();
  const std::vector<ParamSettings> settings = param_settings(optim, params);
  for (size_t i = 0; i < shards.size(); ++i) {
    const ParamSpec& spec = params.spec(shards[i].id);
    const bool muon = settings[i].owner == Owner::muon;
    const double n = double(shards[i].master.numel()), copy = shards[i].copy ? 2 : 0,
                 direction = copy > 0 ? 2 : 4;
    const double states = (muon ? 2 : 4) * state;  // read and written
    w.bytes += n * (4 + 4 + 8 + copy + (muon ? 2 * direction : 0));
    (optim.offload == "host" ? w.host_bytes : w.bytes) +=
        n * (optim.offload == "host" ? states / 2 : states);
    if (muon) w.flops += newton_schulz_flops(spec, optim.muon.ns_steps) / double(sharing_ranks);
  }
  return w;
}

static StepTime step_time(const RunPlan& plan, const Config& c, const Lm& lm,
                          const ParamStore& params, const Figures& f) {
  StepTime t;
  const int64_t activation = device_of(c.run.device) == Device::cuda ? 2 : 4,
                L = c.data.seq_len_tokens;
  t.compute = micro_batch_seconds(token_work(lm, L, activation), plan.micro_batch_tokens,
                                  recompute_of(c.train.recompute), f.compute);
  for (Seconds& s : t.compute) s.seconds *= double(plan.micro_batches);
  const double passes = sum(t.compute);
  for (const Seconds& s : update_seconds(update_work(c.optim, params, plan.mesh.replica()), f))
    t.compute.push_back(s);
  for (const WireRow& row : plan.wire)
    (row.overlaps && f.overlap ? t.beside : t.exposed) += seconds(row, f);
  t.seconds = std::max(passes, t.beside) + (sum(t.compute) - passes) + t.exposed;
  t.mfu = train_flops_per_token(lm, L) * double(plan.batch_tokens) /
          (t.seconds * f.compute.gemm_flops * double(plan.mesh.ranks()));
  return t;
}

RunPlan plan_run(const Config& config, int64_t ranks, const std::optional<Figures>& figures,
                 int64_t rank) {
  Config c = config;
  if (!c.model.vocab_size) open_vocabulary(c);
  RunPlan plan;
  plan.mesh = mesh_shape(c.parallel, ranks);
  plan.device = c.run.device;
  plan.figures = figures;
  const Device device = device_of(c.run.device);
  const Mesh mesh(plan.mesh, rank);
  const std::unique_ptr<ParamStore> store = make_store(c.parallel, c.model, mesh, device);
  ParamStore& params = *store;
  const Lm lm(c.model, params);
  params.plan();
  const DType value = device == Device::cuda ? DType::bf16 : DType::f32;
  plan.memory = plan_memory(c, mesh);
  plan.parameters = params.numel();
  plan.active_parameters = active_parameters(lm, params);
  plan.batch_tokens = c.train.batch_tokens;
  plan.micro_batch_tokens = c.train.micro_batch_tokens;
  const int64_t all = c.train.batch_tokens / c.train.micro_batch_tokens;
  plan.micro_batches = (all + mesh.data_ranks() - 1) / mesh.data_ranks();
  if (ranks > 1)
    plan.wire = wire_of_step({.params = params,
                              .layout = ShardLayout(params, mesh, DType::f32, value),
                              .groups = planned_groups(params, mesh, device),
                              .mesh = mesh,
                              .config = c,
                              .ranks_per_node = figures ? figures->ranks_per_node : 8,
                              .micro_batches = plan.micro_batches,
                              .value = value});
  if (figures) plan.time = step_time(plan, c, lm, params, *figures);
  return plan;
}

}  // namespace sluice
