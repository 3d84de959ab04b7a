// trainer/bench/step_bench.cpp -- correctness first, then the median step and where it goes.
#include "trainer/bench/step_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/tasks/task.h"
#include "kernels/tensor/rng.h"
#include "model/autograd/plain_store.h"
#include "model/lm/cost.h"
#include "optim/optimizer.h"
#include "trainer/loop/measure.h"
#include "trainer/loop/step.h"

namespace sluice {

namespace {

// Random rows, each one document.
MicroBatchBuffer random_batch(const Config& c, uint64_t seed) {
  const int64_t N = c.train.micro_batch_tokens, L = c.data.seq_len_tokens;
  MicroBatchBuffer buffer(N, N / L);
  MicroBatch& batch = buffer.batch();
  std::vector<int32_t> ends;
  for (int64_t end = L; end <= N; end += L) ends.push_back(int32_t(end));
  set_documents(ends, batch);
  for (int64_t n = 0; n < N; ++n) {
    const auto draw = [&](uint64_t at) {
      return int32_t(random_uniform(seed, at) * double(*c.model.vocab_size));
    };
    batch.tokens.as<int32_t>()[n] = draw(uint64_t(2 * n));
    batch.targets.as<int32_t>()[n] = draw(uint64_t(2 * n + 1));
  }
  batch.valid_tokens = N;
  return buffer;
}

// The loss of the same weights and batch.
double loss_in(DType dtype, const Config& c, const Context& on, const MicroBatch& batch) {
  PlainStore params(dtype);
  const Lm lm(c.model, params);
  params.allocate();
  initialize(params, uint64_t(c.run.seed));
  StepRunner runner(on, params, lm, Recompute::none, 0);
  Arena arena(Device::cpu, runner.plan(batch));
  runner.use(arena);
  params.start_step();
  return runner.validate(batch) / double(batch.valid_tokens);
}

// The loss in both types, in the report; throws if they are not the same.
void check_loss(const Config& c, const Context& ctx, const MicroBatch& batch,
                nlohmann::ordered_json& report) {
  const double f64 = loss_in(DType::f64, c, ctx, batch), f32 = loss_in(DType::f32, c, ctx, batch);
  report["loss_f64"] = f64;
  report["loss_f32"] = f32;
  // A mean of N losses of about ln(vocab): what is left of f32's rounding through the layers.
  SLUICE_CHECK(std::fabs(f32 - f64) < 1e-4 * std::fabs(f64), "the loss is ", f32, " in f32 and ",
               f64, " in f64");
}

int64_t plan_update(const Context& ctx, Optimizer& optimizer) {
  Arena arena = Arena::plan(Device::cpu);
  Context plan = ctx;
  plan.mode = Mode::plan;
  plan.arena = &arena;
  optimizer.clip(plan, nullptr);
  optimizer.step(plan, nullptr);
  return arena.peak();
}

struct Measured {
  OpTimes times;  // of all repeats
  std::vector<double> seconds;
  double in_optimizer = 0;  // seconds of all repeats
};

void measure_steps(const Config& c, const Context& ctx, int64_t repeats, PlainStore& params,
                   Optimizer& optimizer, StepRunner& runner, const MicroBatch& batch,
                   Measured& out) {
  StepState state;
  const int64_t micro_batches = c.train.batch_tokens / c.train.micro_batch_tokens;
  for (int64_t i = 0; i <= repeats; ++i) {
    if (i == 1) runner.time_into(&out.times);  // the first only warms up
    const double begin = monotonic_seconds();
    params.start_step();
    for (int64_t m = 0; m < micro_batches; ++m)
      runner.train(batch, 1 / double(c.train.batch_tokens));
    params.finish_gradients();
    const double before = monotonic_seconds();
    state.step = i + 1;
    state.lr = 1e-4F;
    optimizer.clip(ctx, &state);
    optimizer.step(ctx, &state);
    const double end = monotonic_seconds();
    if (i == 0) continue;
    out.seconds.push_back(end - begin);
    out.in_optimizer += end - before;
  }
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

}  // namespace

nlohmann::ordered_json bench_step(const Config& config, const StepBench& bench) {
  Config c = config;
  if (!c.model.vocab_size && c.data.task)
    c.model.vocab_size = int64_t(task_words(*c.data.task).size());
  if (!c.model.vocab_size) throw Error("model.vocab_size: expected a size (no tokenizer is read)");
  const int64_t N = c.train.micro_batch_tokens, L = c.data.seq_len_tokens;
  if (N % L != 0 || c.train.batch_tokens % N != 0)
    throw Error(cat("train.batch_tokens (", c.train.batch_tokens,
                    ") must be a multiple of train.micro_batch_tokens (", N,
                    "), and that one of data.seq_len_tokens (", L, ")"));
  const int threads =
      c.run.threads ? int(*c.run.threads) : int(std::max(1u, std::thread::hardware_concurrency()));
  ThreadPool pool(threads);
  Context ctx;
  ctx.threads = &pool;
  MicroBatchBuffer buffer = random_batch(c, uint64_t(c.run.seed));
  MicroBatch& batch = buffer.batch();

  nlohmann::ordered_json report;
  if (bench.check) check_loss(c, ctx, batch, report);

  PlainStore params(DType::f32);
  const Lm lm(c.model, params);
  params.allocate();
  initialize(params, uint64_t(c.run.seed));
  Optimizer optimizer(c.optim, params);
  StepRunner runner(ctx, params, lm,
                    c.train.recompute == "block" ? Recompute::block : Recompute::none,
                    c.train.z_loss);
  const int64_t planned = std::max(runner.plan(batch), plan_update(ctx, optimizer));
  Arena arena(Device::cpu, planned);
  ctx.arena = &arena;
  runner.use(arena);

  Measured measured;
  measure_steps(c, ctx, bench.repeats, params, optimizer, runner, batch, measured);
  SLUICE_CHECK(arena.peak() == planned, "the step used ", arena.peak(), " bytes of ", planned,
               " planned");

  const double step = median(measured.seconds), tokens = double(c.train.batch_tokens);
  const double flops = train_flops_per_token(lm, L) * tokens,
               peak = measure_gemm_rate(ctx, threads);
  report["parameters"] = params.numel();
  report["active_parameters"] = active_parameters(lm, params);
  report["tokens"] = c.train.batch_tokens;
  report["seq_len_tokens"] = L;
  report["threads"] = threads;
  report["step_seconds"] = step;
  report["fastest_seconds"] = *std::min_element(measured.seconds.begin(), measured.seconds.end());
  report["tokens_per_second"] = tokens / step;
  report["gflops"] = flops / step / 1e9;
  report["gemm_gflops"] = peak / 1e9;
  report["share_of_gemm_rate"] = flops / step / peak;
  report["bytes"] = {{"weights", params.numel() * 4},
                     {"gradients", params.numel() * 4},
                     {"optimizer", optimizer.bytes()},
                     {"step_planned", planned},
                     {"step_used", arena.peak()}};
  const double repeats = double(bench.repeats);
  for (const auto& [op, row] : measured.times.rows())
    report["ops"][op] = {{"calls", double(row.calls) / repeats},
                         {"forward_seconds", row.forward_seconds / repeats},
                         {"backward_seconds", row.backward_seconds / repeats}};
  report["ops"]["optimizer"] = {{"calls", 1},
                                {"forward_seconds", measured.in_optimizer / repeats},
                                {"backward_seconds", 0.0}};
  return report;
}

std::string bench_step_text(const nlohmann::ordered_json& r) {
  std::string out;
  if (r.contains("loss_f64"))
    out += fmt::format("loss     {:.7f} in f64, {:.7f} in f32\n", r["loss_f64"].get<double>(),
                       r["loss_f32"].get<double>());
  out += fmt::format(
      "model    {:.1f}M parameters, {:.1f}M active\n"
      "step     {} tokens in rows of {}, {} threads: median {:.3f} s, fastest {:.3f} s, {:.0f} "
      "tokens/s\n"
      "rate     {:.1f} GFLOP/s, {:.0f} % of the GEMM rate, {:.0f} GFLOP/s\n",
      r["parameters"].get<double>() / 1e6, r["active_parameters"].get<double>() / 1e6,
      r["tokens"].get<int64_t>(), r["seq_len_tokens"].get<int64_t>(), r["threads"].get<int>(),
      r["step_seconds"].get<double>(), r["fastest_seconds"].get<double>(),
      r["tokens_per_second"].get<double>(), r["gflops"].get<double>(),
      100 * r["share_of_gemm_rate"].get<double>(), r["gemm_gflops"].get<double>());
  const auto mib = [&](const char* what) {
    return r["bytes"][what].get<double>() / double(1 << 20);
  };
  out += fmt::format(
      "memory   weights {:.1f} MiB, gradients {:.1f}, optimizer {:.1f}, step planned {:.1f}, used "
      "{:.1f}\n\n",
      mib("weights"), mib("gradients"), mib("optimizer"), mib("step_planned"), mib("step_used"));

  std::vector<std::pair<double, std::string>> lines;
  for (const auto& [op, row] : r["ops"].items()) {
    const double f = row["forward_seconds"], b = row["backward_seconds"];
    lines.emplace_back(f + b, fmt::format("{:<22} {:>6.0f} {:>12.1f} {:>12.1f} {:>6.1f} %\n", op,
                                          row["calls"].get<double>(), f * 1e3, b * 1e3,
                                          100 * (f + b) / r["step_seconds"].get<double>()));
  }
  std::sort(lines.rbegin(), lines.rend());
  out += fmt::format("{:<22} {:>6} {:>12} {:>12} {:>8}\n", "op", "calls", "forward ms",
                     "backward ms", "of step");
  for (const auto& line : lines) out += line.second;
  return out;
}

}  // namespace sluice
