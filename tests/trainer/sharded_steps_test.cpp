// tests/trainer/sharded_steps_test.cpp -- 20 steps in f64 on meshes of ranks against one rank: what
// many ranks compute is what one computes, and only sums are cut elsewhere.
//
// 2^-53 a sum: after 20 steps some 1e-12 of the losses and weights is left to see. A gradient that
// is counted twice, a wrong buffer or a forgotten rank is 1e-3 at least.
#include <fmt/format.h>

#include <map>
#include <mutex>

#include "kernels/comm/local_comm.h"
#include "kernels/step_control/step_control.h"
#include "kernels/tensor/fill.h"
#include "optim/expert_bias.h"
#include "optim/optimizer.h"
#include "optim/qk_clip.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_run.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice::test {
namespace {

constexpr int64_t kSteps = 20;
constexpr double kLossTolerance = 1e-10;   // nats
constexpr double kWeightTolerance = 1e-9;  // of the largest weight of a tensor
constexpr double kThreshold = 0.05;        // of attention logits: heads pass it

struct Result {
  std::vector<double> losses;
  std::map<std::string, std::vector<double>> weights;
};

class ShardedSteps : public TinyRun {
 protected:
  Config config_of(const LmConfig& model, const std::string& optimizer) const {
    Config c = config("run");
    c.model = model;
    c.model.vocab_size = 257;
    c.optim.kind = optimizer;
    c.train.steps = kSteps;
    c.train.batch_tokens = 96 * 8;
    c.train.micro_batch_tokens = 96;
    return c;
  }

  // What Trainer does, on a store of f64.
  void train(const Config& c, const Mesh& mesh, ParamStore& params, std::mutex& mutex,
             Result& result) const {
    const CpuContext cpu(Mode::run, 1);
    const Context& ctx = cpu.ctx;
    const bool alone = mesh.shape().ranks() == 1;
    const Lm lm(c.model, params);
    params.allocate();
    initialize(params, 3);
    ShardGroups groups;
    if (!alone) groups.weights = shard_group(mesh.replica(), params, false);
    if (!alone) groups.experts = shard_group(mesh.replica(), params, true);
    Optimizer optimizer(c.optim, params, groups);
    StepStats stats(params);
    Loader loader(c.data, c.train.batch_tokens, c.train.micro_batch_tokens, int(mesh.data_rank()),
                  int(mesh.data_ranks()));
    MicroBatchBuffer batch = loader.make_buffer();
    StepRunner runner(ctx, params, lm, Recompute::block, 1e-3, &stats);
    if (mesh.shape().context > 1) runner.cut_over(mesh.context());
    runner.plan(batch.batch());
    runner.use(*ctx.arena);
    StepState state;
    for (int64_t step = 0; step < kSteps; ++step) {
      runner.begin_step(&state, 0.01F);
      for (int64_t m = 0; m < loader.micro_batches(); ++m) {
        loader.load(step, m, batch.batch());
        runner.train(batch.batch(), 1.0 / double(loader.valid_tokens(step)));
      }
      params.finish_gradients(ctx);
      double loss = state.cross_entropy;
      const auto sum = [&](const Tensor& t) {
        if (mesh.replicate_rank() > 0) zero(ctx, t);
        mesh.world().all_reduce_sum(t);
      };
      if (alone) {
        optimizer.clip(ctx, &state);
      } else {
        mesh.world().all_reduce_sum(make_tensor(&loss, DType::f64, Device::cpu, {1}));
        if (stats.expert_counts()) mesh.world().all_reduce_sum(stats.expert_counts());
        mesh.world().all_reduce_max(stats.max_logits());
        optimizer.clip(ctx, &state, sum);
      }
      decide(ctx, &state);
      optimizer.step(ctx, &state);
      qk_clip(ctx, params, stats, kThreshold, &state);
      update_expert_bias(ctx, params, stats, 1e-3, &state);
      const std::lock_guard lock(mutex);
      if (mesh.rank() == 0) result.losses.push_back(loss);
    }
    const std::lock_guard lock(mutex);
    for (const Shard& s : params.shards()) {
      std::vector<double>& all = result.weights[params.spec(s.id).name];
      all.resize(size_t(params.spec(s.id).numel()));
      std::copy_n(s.master.as<double>(), s.master.numel(), all.begin() + s.begin);
    }
  }

  Result one_rank(const Config& c) const {
    Result result;
    std::mutex mutex;
    PlainStore params(DType::f64);
    train(c, Mesh({}, 0), params, mutex, result);
    return result;
  }
  Result many_ranks(const Config& c, int ranks, const ParallelConfig& p, bool poison) const {
    Result result;
    std::mutex mutex;
    LocalGroup(ranks).run([&](Comm& world) {
      const Mesh mesh(mesh_shape(p, ranks), world);
      ShardedStore params(mesh, {.dtype = DType::f64,
                                 .reshard_after_forward = p.reshard_after_forward,
                                 .unsharded_gradients = p.unsharded_gradients,
                                 .held_at_once = c.model.tie_word_embeddings ? 2 : 1,
                                 .poison = poison});
      train(c, mesh, params, mutex, result);
    });
    return result;
  }

  static void expect_close(const Result& got, const Result& want, const std::string& name) {
    double losses = 0, weights = 0;
    for (size_t i = 0; i < want.losses.size(); ++i)
      losses = std::max(losses, std::abs(want.losses[i] - got.losses.at(i)));
    for (const auto& [tensor, w] : want.weights) {
      double scale = 0, difference = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        scale = std::max(scale, std::abs(w[i]));
        difference = std::max(difference, std::abs(w[i] - got.weights.at(tensor).at(i)));
      }
      EXPECT_LE(difference, kWeightTolerance * scale) << name << ", " << tensor;
      if (scale > 0) weights = std::max(weights, difference / scale);
    }
    EXPECT_LT(losses, kLossTolerance) << name;
    std::cout << fmt::format("{:<24} losses within {:.1e}, weights within {:.1e}\n", name, losses,
                             weights);
  }
};

TEST_F(ShardedSteps, DenseModelWithAdamW) {
  const Config c = config_of(tiny_config(), "adamw");
  const Result want = one_rank(c);
  EXPECT_LT(want.losses.back(), want.losses.front() - 1) << "it learns";
  for (const int ranks : {2, 3, 4, 8})
    expect_close(many_ranks(c, ranks, {}, ranks == 3), want, cat("fsdp ", ranks));
  expect_close(many_ranks(c, 4, {.data_replicate = 2}, true), want, "hsdp 2x2");
  expect_close(many_ranks(c, 2, {.data_replicate = 2}, false), want, "replicas alone");
  expect_close(many_ranks(c, 4, {.reshard_after_forward = false}, false), want, "fsdp 4, kept");
  expect_close(many_ranks(c, 4, {.data_replicate = 2, .unsharded_gradients = true}, false), want,
               "hsdp 2x2, unsharded");
}

TEST_F(ShardedSteps, PiecesOfTheSequence) {
  const Config c = config_of(tiny_config(), "adamw");
  const Result want = one_rank(c);
  for (const int ranks : {2, 3, 4})
    expect_close(many_ranks(c, ranks, {.context = ranks}, ranks == 3), want, cat("cp ", ranks));
  expect_close(many_ranks(c, 4, {.context = 2}, true), want, "fsdp 2, cp 2");
  expect_close(many_ranks(c, 8, {.data_replicate = 2, .context = 2}, false), want,
               "hsdp 2x2, cp 2");
  LmConfig moe = tiny_moe_config();
  moe.tie_word_embeddings = true;
  const Config experts = config_of(moe, "muon");
  expect_close(many_ranks(experts, 4, {.context = 2}, false), one_rank(experts),
               "experts, fsdp 2, cp 2");
}

TEST_F(ShardedSteps, ExpertsAndTiedEmbeddingsWithMuon) {
  LmConfig model = tiny_moe_config();
  model.tie_word_embeddings = true;
  const Config c = config_of(model, "muon");
  const Result want = one_rank(c);
  for (const int ranks : {2, 3})
    expect_close(many_ranks(c, ranks, {}, ranks == 3), want, cat("fsdp ", ranks));
  expect_close(many_ranks(c, 4, {.data_replicate = 2}, false), want, "hsdp 2x2");
  expect_close(many_ranks(c, 2, {.unsharded_gradients = true}, false), want, "fsdp 2, unsharded");
}

}  // namespace
}  // namespace sluice::test
