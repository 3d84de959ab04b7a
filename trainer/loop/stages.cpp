// trainer/loop/stages.cpp -- each stage over what came before it.
#include "trainer/loop/stages.h"

#include <fmt/format.h>

#include "configs/schema.h"
#include "kernels/tensor/rng.h"
#include "optim/schedule.h"

namespace sluice {

std::vector<DataPart> data_parts(const Config& config) {
  std::vector<DataPart> parts{{0, config.train.steps, config.data}};
  for (const StageConfig& s : config.train.stages) {
    if (!s.seq_len_tokens && s.data.train.empty() && s.data.validation.empty()) continue;
    DataPart next{s.at_step, config.train.steps, parts.back().data};
    if (s.seq_len_tokens) next.data.seq_len_tokens = *s.seq_len_tokens;
    if (!s.data.train.empty()) next.data.train = s.data.train;
    if (!s.data.validation.empty()) next.data.validation = s.data.validation;
    next.data.seed =
        int64_t(rng_key(uint64_t(config.data.seed), cat("stage at step ", s.at_step)) >> 1);
    parts.back().end = s.at_step;
    parts.push_back(std::move(next));
  }
  return parts;
}

std::vector<SchedulePart> schedule_parts(const Config& config) {
  std::vector<SchedulePart> parts{{0, config.train.steps, config.optim}};
  for (const StageConfig& s : config.train.stages) {
    if (!s.schedule) continue;
    SchedulePart next{s.at_step, config.train.steps, parts.back().optim};
    next.optim.schedule = *s.schedule;
    if (s.schedule->lr) next.optim.lr = *s.schedule->lr;
    parts.back().end = s.at_step;
    parts.push_back(std::move(next));
  }
  return parts;
}

double lr_after(const std::vector<SchedulePart>& parts, int64_t steps_done) {
  size_t i = parts.size() - 1;
  while (i > 0 && parts[i].begin > steps_done) --i;
  const SchedulePart& p = parts[i];
  return lr_at(p.optim, steps_done + 1 - p.begin, p.end - p.begin);
}

std::vector<std::string> changed_past(const Config& before, const Config& now, int64_t steps_done) {
  std::vector<DataPart> was = data_parts(before), is = data_parts(now);
  std::erase_if(was, [&](const DataPart& p) { return p.begin >= steps_done; });
  std::erase_if(is, [&](const DataPart& p) { return p.begin >= steps_done; });
  if (was.size() != is.size())
    return {cat("train.stages: data changed ", was.size() - 1, " times in the ", steps_done,
                " steps done, ", is.size() - 1, " times by this config")};
  std::vector<std::string> changed;
  for (size_t i = 0; i < was.size(); ++i) {
    if (was[i].begin != is[i].begin)
      changed.push_back(cat("train.stages: data changed at step ", was[i].begin, ", at ",
                            is[i].begin, " by this config"));
    for (const auto& [key, a, b] : config::diff(was[i].data, is[i].data))
      if (key.rfind("validation", 0) != 0 && key.rfind("task.validation", 0) != 0)
        changed.push_back(cat("data.", key, " from step ", was[i].begin, ": was ", a, ", is ", b));
  }
  return changed;
}

std::string stage_table(const std::vector<DataPart>& data, const std::vector<SchedulePart>& lr,
                        int64_t batch_tokens) {
  std::string table;
  for (const DataPart& p : data) {
    std::string sources;
    for (const DataSource& s : p.data.train)
      sources += fmt::format("  {} x {:g}", s.path, s.weight);
    table +=
        fmt::format("data     steps {:>6} to {:>6}: {} rows of {} tokens{}\n", p.begin + 1, p.end,
                    batch_tokens / p.data.seq_len_tokens, p.data.seq_len_tokens, sources);
  }
  for (const SchedulePart& p : lr)
    table += fmt::format(
        "lr       steps {:>6} to {:>6}: {} to {:g}, {} steps of warm-up{}\n", p.begin + 1, p.end,
        p.optim.schedule.kind, p.optim.lr, p.optim.schedule.warmup_steps,
        p.optim.schedule.kind == "wsd" ? fmt::format(", {} of decay", p.optim.schedule.decay_steps)
                                       : "");
  return data.size() + lr.size() > 2 ? table : "";
}

}  // namespace sluice
