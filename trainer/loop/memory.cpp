// trainer/loop/memory.cpp -- passes in plan mode, and sizes.
#include "trainer/loop/memory.h"

#include <fmt/format.h>

#include "data/tasks/task.h"
#include "data/tokenizer/tokenizer.h"
#include "trainer/loop/device.h"
#include "trainer/loop/planned_groups.h"
#include "trainer/loop/stages.h"
#include "trainer/loop/validation.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice {

std::unique_ptr<ParamStore> make_store(const ParallelConfig& parallel, const LmConfig& model,
                                       const Mesh& mesh, Device device) {
  if (mesh.shape().ranks() == 1) return std::make_unique<PlainStore>(DType::f32, device);
  const ShardedStore::Options options{.device = device,
                                      .reshard_after_forward = parallel.reshard_after_forward,
                                      .unsharded_gradients = parallel.unsharded_gradients,
                                      .held_at_once = model.tie_word_embeddings ? 2 : 1};
  return std::make_unique<ShardedStore>(mesh, options);
}

MemoryPlan plan_memory(const Context& ctx, const ParamStore& params, const StepStats& stats,
                       StepRunner& runner, Optimizer& optimizer, PlannedShapes shapes) {
  MemoryPlan plan{.params = params.bytes(),
                  .moments = optimizer.bytes(),
                  .host_moments = optimizer.host_bytes()};
  const auto largest = [&](const PlannedPeak& p) {
    if (p.bytes > plan.step) plan.step = p.bytes, plan.at_peak = p.by_purpose;
  };
  for (MicroBatchBuffer& b : shapes.train) largest(runner.plan_peak(b.batch()));
  for (MicroBatchBuffer& b : shapes.score) largest(runner.plan_score_peak(b.batch()));
  Arena update = Arena::plan(ctx.device);
  Context planning = ctx;
  planning.mode = Mode::plan;
  planning.arena = &update;
  optimizer.clip(planning, nullptr);
  optimizer.step(planning, nullptr);
  largest({update.peak(), update.at_peak()});
  plan.inputs = runner.input_bytes();
  plan.control =
      int64_t(sizeof(StepState)) + StepRunner::kLossBytes + Optimizer::kSumBytes + stats.bytes();
  return plan;
}

static PlannedShapes shapes_of(const Config& c) {
  PlannedShapes shapes;
  const int64_t N = c.train.micro_batch_tokens;
  for (const DataPart& p : data_parts(c)) {
    const int64_t L = p.data.seq_len_tokens;
    if (p.data.train.empty() && !p.data.task)
      shapes.train.emplace_back(N, N / L);
    else
      shapes.train.push_back(Loader(p.data, c.train.batch_tokens, N).make_buffer());
    for (const NamedSet& s : validation_sets(p.data, N))
      shapes.score.push_back(s.set.make_buffer());
  }
  return shapes;
}

MemoryPlan plan_memory(const Config& config) {
  return plan_memory(config, Mesh(mesh_shape(config.parallel, 1), 0));
}

MemoryPlan plan_memory(const Config& config, const Mesh& mesh) {
  Config c = config;
  if (!c.model.vocab_size) open_vocabulary(c);
  const Context ctx{.device = device_of(c.run.device)};
  const std::unique_ptr<ParamStore> params = make_store(c.parallel, c.model, mesh, ctx.device);
  const Lm lm(c.model, *params);
  params->plan();
  Optimizer optimizer(c.optim, *params, planned_groups(*params, mesh, ctx.device));
  const StepStats stats(*params);
  StepRunner runner(ctx, *params, lm, recompute_of(c.train.recompute), c.train.z_loss);
  return plan_memory(ctx, *params, stats, runner, optimizer, shapes_of(c));
}

std::string to_string(const MemoryPlan& p, const std::string& device) {
  const auto line = [](const char* what, int64_t bytes) {
    return bytes == 0 ? std::string()
                      : fmt::format("  {:<28}{:>16} {:>12.1f} MiB\n", what, bytes,
                                    double(bytes) / (1 << 20));
  };
  std::string text = fmt::format("memory on {}\n", device);
  text += line("masters, f32", p.params.masters) + line("bf16 copies", p.params.copies) +
          line("gradients", p.params.gradients) + line("gathered groups", p.params.gathered) +
          line("gradients of whole groups", p.params.unsharded) + line("moments", p.moments) +
          line("micro-batch", p.inputs) + line("step state, statistics", p.control);
  int64_t gaps = p.step;
  for (int i = 0; i < kPurposes; ++i) {
    text += line(name(Purpose(i)), p.at_peak[size_t(i)]);
    gaps -= p.at_peak[size_t(i)];
  }
  text += line("gaps", gaps) + line("all", p.total());
  return text + line("pinned on the host: moments", p.host_moments);
}

std::string open_vocabulary(Config& c) {
  int64_t words = 0;
  std::string fingerprint;
  if (c.data.task) {
    words = int64_t(task_words(*c.data.task).size());
  } else {
    const Tokenizer tokenizer = Tokenizer::load(c.data.tokenizer);
    words = tokenizer.vocab_size();
    fingerprint = tokenizer.fingerprint();
  }
  if (!c.model.vocab_size) c.model.vocab_size = words;
  SLUICE_CHECK(*c.model.vocab_size >= words, "model.vocab_size is ", *c.model.vocab_size, ", the ",
               c.data.task ? "task" : "tokenizer", " has ", words);
  return fingerprint;
}

}  // namespace sluice
