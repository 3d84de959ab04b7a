// trainer/sweep/plan_text.cpp -- a plan as tables.
#include <fmt/format.h>

#include "trainer/sweep/plan.h"

namespace sluice {

std::string plan_text(const SweepPlan& plan) {
  size_t widest = 8;
  for (const SweepRow& r : plan.rows) widest = std::max(widest, r.name.size());
  std::string out = fmt::format("{:<{}} {:>14} {:>14} {:>16}", "variant", widest, "parameters",
                                "active", "MFLOP/token");
  if (plan.sweep.match)
    out +=
        fmt::format("  {:>20} {:>10}",
                    plan.sweep.match->by.substr(plan.sweep.match->by.rfind('.') + 1), "deviation");
  out += "\n";
  for (const SweepRow& r : plan.rows) {
    out += fmt::format("{:<{}} {:>14} {:>14} {:>16.4f}", r.name, widest, r.model.parameters,
                       r.model.active_parameters, r.model.flops_per_token / 1e6);
    if (r.matched)
      out += fmt::format("  {:>20} {:>+9.3f}%",
                         fmt::format("{} -> {}", r.matched->before, r.matched->after),
                         100 * r.matched->deviation);
    out += "\n";
  }
  out += fmt::format("\n{} runs in {}/runs\n", plan.runs.size(), plan.sweep.dir);
  for (const SweepRun& run : plan.runs) {
    const TrainSettings& t = run.config.train;
    out += fmt::format("  {}: {} steps of {} tokens, lr {}\n", run.name, t.steps, t.batch_tokens,
                       run.config.optim.lr);
  }
  return out;
}

}  // namespace sluice
