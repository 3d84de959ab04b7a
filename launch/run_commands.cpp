// launch/run_commands.cpp -- train, plan, config.
#include <fmt/format.h>

#include "configs/schema.h"
#include "launch/commands.h"
#include "trainer/loop/memory.h"
#include "trainer/loop/trainer.h"

namespace sluice::launch {

Config load(const ConfigSource& c) {
  return with_code(ExitCode::config, [&] { return config::load<Config>(c.file, c.set); });
}

void print_config(const ConfigSource& c) {
  fmt::print("{}", config::print(load(c)));
}

int train(const ConfigSource& c, bool fresh) {
  Trainer trainer(load(c), fresh ? Trainer::Folder::fresh : Trainer::Folder::any);
  return int(trainer.run());
}

void plan(const ConfigSource& source) {
  const Config c = load(source);
  fmt::print("{}", to_string(with_code(ExitCode::data, [&] { return plan_memory(c); }),
                             name(device_of(c.run.device))));
}

}  // namespace sluice::launch
