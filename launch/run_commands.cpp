// launch/run_commands.cpp -- train, plan, config.
#include <fmt/format.h>

#include "configs/schema.h"
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

int train(const ConfigSource& c, bool fresh, const std::string& profile) {
  Trainer trainer(load(c), fresh ? Trainer::Folder::fresh : Trainer::Folder::any);
  if (!profile.empty()) trainer.profile({.file = profile});
  return int(trainer.run());
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
