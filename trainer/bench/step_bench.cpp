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
#include "trainer/bench/queued_step.h"
#include "trainer/loop/device.h"
#include "trainer/loop/measure.h"
#include "trainer/loop/step.h"

namespace sluice {

namespace {

// Random rows, each one document.
MicroBatchBuffer random_batch(const Config& c, uint64_t seed) {
  const int64_t N = c.train.micro_batch_tokens, L = c.data.seq_len_tokens;
  MicroBatchBuffer buffer(N, N / L, L);
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
  PlainStore params(dtype, on.device);
  const Lm lm(c.model, params);
  params.allocate();
  initialize(params, uint64_t(c.run.seed), on);
  params.refresh(on);
  StepRunner runner(on, params, lm, Recompute::none, 0);
  Arena arena(on.device, runner.plan(batch));
  runner.use(arena);
  params.start_step();
  return runner.validate(batch) / double(batch.valid_tokens);
}

// The loss in both types, in the report; throws if they are not the same: f32 against f64 on the
// CPU, bf16 on the GPU against f32 on the CPU.
void check_loss(const Config& c, const Context& ctx, const MicroBatch& batch,
                nlohmann::ordered_json& report) {
  const Context cpu{.threads = ctx.threads};
  const bool on_cpu = ctx.device == Device::cpu;
  const double want = loss_in(on_cpu ? DType::f64 : DType::f32, c, cpu, batch),
               got = loss_in(DType::f32, c, ctx, batch);
  report[on_cpu ? "loss_f64" : "loss_f32"] = want;
  report[on_cpu ? "loss_f32" : "loss_bf16"] = got;
  // A mean of N losses of about ln(vocab): what is left of the rounding through the layers.
  const double bound = on_cpu ? 1e-4 : 5e-3;
  SLUICE_CHECK(std::fabs(got - want) < bound * std::fabs(want), "the loss is ", got, " in ",
               on_cpu ? "f32 and " : "bf16 and ", want, on_cpu ? " in f64" : " in f32");
}

int64_t plan_update(const Context& ctx, Optimizer& optimizer) {
  Arena arena = Arena::plan(ctx.device);
  Context plan = ctx;
  plan.mode = Mode::plan;
  plan.arena = &arena;
  optimizer.clip(plan, nullptr);
  optimizer.step(plan, nullptr);
  return arena.peak();
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
  Context ctx{.threads = &pool};
  const DeviceHandles handles(device_of(c.run.device), ctx, determinism_of(c.run.determinism));
  MicroBatchBuffer buffer = random_batch(c, uint64_t(c.run.seed));
  MicroBatch& batch = buffer.batch();

  nlohmann::ordered_json report;
  if (bench.check) check_loss(c, ctx, batch, report);

  PlainStore params(DType::f32, ctx.device);
  const Lm lm(c.model, params);
  params.allocate();
  initialize(params, uint64_t(c.run.seed), ctx);
  params.refresh(ctx);
  Optimizer optimizer(c.optim, params);
  StepRunner runner(ctx, params, lm, recompute_of(c.train.recompute), c.train.z_loss);
  const int64_t planned = std::max(runner.plan(batch), plan_update(ctx, optimizer));
  Arena arena(ctx.device, planned);
  ctx.arena = &arena;
  runner.use(arena);

  Measured measured(ctx);
  QueuedStep one(c, ctx, params, optimizer, runner, batch);
  measure_steps(ctx, bench.repeats, runner, one, measured);
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
  report["device"] = ctx.device == Device::cuda ? gpu_name() : "cpu";
  report["determinism"] = c.run.determinism;
  report["step_seconds"] = step;
  if (!measured.queue.empty()) {
    report["queue_seconds"] = median(measured.queue);
    report["eager_step_seconds"] = median(measured.eager);
    report["eager_queue_seconds"] = median(measured.eager_queue);
  }
  report["fastest_seconds"] = *std::min_element(measured.seconds.begin(), measured.seconds.end());
  report["tokens_per_second"] = tokens / step;
  report["gflops"] = flops / step / 1e9;
  report["gemm_gflops"] = peak / 1e9;
  report["share_of_gemm_rate"] = flops / step / peak;
  report["bytes"] = {{"weights", params.numel() * (ctx.device == Device::cuda ? 6 : 4)},
                     {"gradients", params.numel() * 4},
                     {"optimizer", optimizer.bytes()},
                     {"step_planned", planned},
                     {"step_used", arena.peak()},
                     {"device_in_use", used_device_bytes(ctx.device)}};
  const double repeats = double(bench.repeats);
  for (const auto& [op, row] : measured.times.rows())
    report["ops"][op] = {{"calls", double(row.calls) / repeats},
                         {"forward_seconds", row.forward_seconds / repeats},
                         {"backward_seconds", row.backward_seconds / repeats}};
  return report;
}

std::string bench_step_text(const nlohmann::ordered_json& r) {
  std::string out;
  for (const auto& [wide, narrow] : {std::pair("f64", "f32"), std::pair("f32", "bf16")}) {
    const std::string a = cat("loss_", wide), b = cat("loss_", narrow);
    if (r.contains(a) && r.contains(b))
      out += fmt::format("loss     {:.7f} in {}, {:.7f} in {}\n", r[a].get<double>(), wide,
                         r[b].get<double>(), narrow);
  }
  out += fmt::format(
      "model    {:.1f}M parameters, {:.1f}M active\n"
      "step     {} tokens in rows of {}, {} threads, {}, {}: median {:.4f} s, fastest {:.4f} s, "
      "{:.0f} "
      "tokens/s\n"
      "rate     {:.1f} GFLOP/s, {:.0f} % of the GEMM rate, {:.0f} GFLOP/s\n",
      r["parameters"].get<double>() / 1e6, r["active_parameters"].get<double>() / 1e6,
      r["tokens"].get<int64_t>(), r["seq_len_tokens"].get<int64_t>(), r["threads"].get<int>(),
      r["device"].get<std::string>(), r["determinism"].get<std::string>(),
      r["step_seconds"].get<double>(), r["fastest_seconds"].get<double>(),
      r["tokens_per_second"].get<double>(), r["gflops"].get<double>(),
      100 * r["share_of_gemm_rate"].get<double>(), r["gemm_gflops"].get<double>());
  if (r.contains("queue_seconds"))
    out += fmt::format(
        "host     queues a step in {:.4f} s; without graphs in {:.4f} s, the step then takes "
        "{:.4f} s\n",
        r["queue_seconds"].get<double>(), r["eager_queue_seconds"].get<double>(),
        r["eager_step_seconds"].get<double>());
  const auto mib = [&](const char* what) {
    return r["bytes"][what].get<double>() / double(1 << 20);
  };
  out += fmt::format(
      "memory   weights {:.1f} MiB, gradients {:.1f}, optimizer {:.1f}, step planned {:.1f}, used "
      "{:.1f}; in use on the device {:.1f}\n\n",
      mib("weights"), mib("gradients"), mib("optimizer"), mib("step_planned"), mib("step_used"),
      mib("device_in_use"));

  std::vector<std::pair<double, std::string>> lines;
  for (const auto& [op, row] : r["ops"].items()) {
    const double f = row["forward_seconds"], b = row["backward_seconds"];
    lines.emplace_back(f + b, fmt::format("{:<22} {:>6.0f} {:>12.1f} {:>12.1f} {:>6.1f} %\n", op,
                                          row["calls"].get<double>(), f * 1e3, b * 1e3,
                                          100 * (f + b) / r["step_seconds"].get<double>()));
  }
  std::sort(lines.rbegin(), lines.rend());
  double sum = 0;
  for (const auto& line : lines) sum += line.first;
  lines.emplace_back(sum, fmt::format("{:<22} {:>6} {:>25.1f} {:>6.1f} %\n", "all", "", sum * 1e3,
                                      100 * sum / r["step_seconds"].get<double>()));
  out += fmt::format("{:<22} {:>6} {:>12} {:>12} {:>8}\n", "op", "calls", "forward ms",
                     "backward ms", "of step");
  for (const auto& line : lines) out += line.second;
  return out;
}

}  // namespace sluice
