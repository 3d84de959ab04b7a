// launch/run_commands.cpp -- train, config, bench.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "launch/commands.h"
#include "trainer/bench/decode_bench.h"
#include "trainer/bench/step_bench.h"
#include "trainer/loop/trainer.h"

namespace sluice::launch {

static Config load(const ConfigSource& c) {
  return with_code(ExitCode::config, [&] { return config::load<Config>(c.file, c.set); });
}

void print_config(const ConfigSource& c) {
  fmt::print("{}", config::print(load(c)));
}

int train(const ConfigSource& c, bool fresh) {
  Trainer trainer(load(c), fresh ? Trainer::Folder::fresh : Trainer::Folder::any);
  return int(trainer.run());
}

void bench_step(const BenchStep& c) {
  const nlohmann::ordered_json report =
      sluice::bench_step(load(c.config), {.repeats = c.repeats, .check = c.check});
  fmt::print("{}", c.json ? report.dump(1) + "\n" : bench_step_text(report));
}

void bench_decode(const BenchDecode& c) {
  const nlohmann::ordered_json report = sluice::bench_decode(
      load(c.config),
      {.context_tokens = c.context_tokens, .new_tokens = c.new_tokens, .slots = c.slots});
  fmt::print("{}", c.json ? report.dump(1) + "\n" : bench_decode_text(report));
}

}  // namespace sluice::launch
