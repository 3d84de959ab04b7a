// launch/check_commands.cpp -- doctor, gradcheck, inspect and compare.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "kernels/comm/world.h"
#include "launch/commands.h"
#include "trainer/doctor/doctor.h"
#include "trainer/gradcheck/gradcheck.h"
#include "trainer/loop/compare.h"
#include "trainer/loop/config.h"
#include "trainer/loop/inspect.h"

namespace sluice::launch {

static double report(const std::string& title, const std::vector<GradcheckRow>& rows) {
  fmt::print("{}\n{}", title, to_string(rows));
  std::fflush(stdout);
  return worst(rows);
}

void gradcheck(const std::string& config_file) {
  Arena arena(Device::cpu, int64_t(4) << 30);  // pages are taken as they are touched
  const Context ctx{.arena = &arena};
  Context reference = ctx;
  reference.mode = Mode::reference;
  fmt::print("Worst relative error against f64 central differences; the bar is 1e-6.\n");
  double w = 0;
  if (!config_file.empty()) {
    const Config c = config::load<Config>(config_file, {});
    LmConfig model = c.model;
    if (!model.vocab_size) model.vocab_size = 64;
    w = report("model of " + config_file, gradcheck_model(ctx, model, Recompute::none, 1));
  } else {
    w = std::max(w, report("ops, reference loops", gradcheck_ops(reference, 1)));
    w = std::max(w, report("ops, fast path", gradcheck_ops(ctx, 1)));
    for (const bool bounded : {false, true}) {
      LmConfig model = gradcheck_config();
      if (bounded) model.kda.gate_lower_bound = -5.0;
      model.mla.use_nope = !bounded;
      const std::string gate = bounded ? "bounded gate, RoPE" : "softplus gate, NoPE";
      w = std::max(
          w, report("model, packed, " + gate, gradcheck_model(ctx, model, Recompute::none, 1)));
      w = std::max(w, report("model, packed, " + gate + ", recomputed blocks",
                             gradcheck_model(ctx, model, Recompute::block, 1)));
    }
    for (const Recompute r : {Recompute::none, Recompute::selective, Recompute::block})
      w = std::max(w, report(r == Recompute::none ? "model, packed, mixture of experts"
                                                  : "the same, recomputed blocks",
                             gradcheck_model(ctx, gradcheck_moe_config(), r, 1)));
    w = std::max(w, report("model, packed, q-LoRA, output gate, full-rank gate, no convolution",
                           gradcheck_model(ctx, gradcheck_variant_config(), Recompute::none, 1)));
    w = std::max(w, report("model, packed, GDN and Mamba2",
                           gradcheck_model(ctx, gradcheck_gdn_config(), Recompute::none, 1)));
  }
  fmt::print("worst of all: {:.2e}\n", w);
  SLUICE_CHECK(w < 1e-6, "the worst error is ", w, ", expected below 1e-6");
}

bool doctor(const ConfigSource& c) {
  const Config config = load(c);
  World world(rank_environment(), {});
  const Diagnosis d = diagnose(config, world.comm());
  if (world.comm().rank() == 0) fmt::print("{}{}\n{}", version(), world.text(), d.text);
  return d.healthy;
}

bool inspect(const Inspect& c) {
  InspectOptions options;
  if (c.verify) options.list = Verify::contents;
  if (isatty(STDERR_FILENO) == 1)
    options.progress = [](int64_t done, int64_t all) {
      if (all < (int64_t(1) << 30)) return;  // no time to read it
      fmt::print(stderr, "\rread {:3d}%{}", 100 * done / all, done == all ? "\n" : "");
    };
  const nlohmann::ordered_json report = sluice::inspect(c.path, options);
  fmt::print("{}", c.json ? report.dump(1) + "\n" : inspect_text(report));
  return report.at(report.contains("files") ? "files" : "checkpoint").at("state") == "valid";
}

bool compare(const std::string& run_a, const std::string& run_b) {
  const std::vector<std::string> differences = compare_runs(run_a, run_b);
  for (const std::string& d : differences) fmt::print("{}\n", d);
  if (differences.empty()) fmt::print("{} and {}: bitwise equal\n", run_a, run_b);
  return differences.empty();
}

}  // namespace sluice::launch
