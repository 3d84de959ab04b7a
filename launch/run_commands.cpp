// launch/run_commands.cpp -- train, plan, config.
#include <fmt/format.h>

#include "configs/schema.h"
#include "kernels/comm/watchdog.h"
#include "kernels/comm/world.h"
#include "launch/commands.h"
#include "trainer/loop/trainer.h"
#include "trainer/plan/plan.h"

namespace sluice::launch {

Config load(const ConfigSource& c) {
  return with_code(ExitCode::config, [&] { return config::load<Config>(c.file, c.set); });
}

void print_config(const ConfigSource& c) {
  fmt::print("{}", config::print(load(c)));
}

// An error of one of many ranks is the end of all.
int train(const ConfigSource& c, bool fresh, const std::string& profile) {
  const Config config = load(c);
  const auto folder = fresh ? Trainer::Folder::fresh : Trainer::Folder::any;
  World world(rank_environment(), {.device = device_of(config.run.device),
                                   .determinism = determinism_of(config.run.determinism),
                                   .staged = config.parallel.staged});
  const auto run = [&](Comm* comm) {
    Trainer trainer(config, folder, comm);
    if (!profile.empty()) trainer.profile({.file = profile});
    return int(trainer.run());
  };
  if (world.comm().size() == 1) return run(nullptr);
  Watchdog watchdog(world.comm(), double(config.parallel.timeout_seconds), int(ExitCode::lost));
  try {
    if (world.comm().rank() == 0) fmt::print("{}\n", world.text());
    return run(&world.comm());
  } catch (const ExitError& e) {
    watchdog.fail(e.what(), int(e.code));
  } catch (const std::exception& e) {
    watchdog.fail(e.what(), int(ExitCode::error));
  }
}

void plan(const PlanRun& p) {
  const Config c = load(p.config);
  std::optional<Figures> figures;
  if (!p.figures.empty())
    figures = with_code(ExitCode::config, [&] { return load_figures(p.figures, p.set_figures); });
  fmt::print("{}",
             to_string(with_code(ExitCode::config, [&] { return plan_run(c, p.ranks, figures); })));
}

}  // namespace sluice::launch
