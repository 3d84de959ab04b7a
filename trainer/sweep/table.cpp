// trainer/sweep/table.cpp -- from the runs' metrics to rows.
#include "trainer/sweep/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "configs/schema.h"
#include "data/tasks/task.h"
#include "model/autograd/plain_store.h"
#include "model/generate/generator.h"
#include "trainer/bench/decode_bench.h"
#include "trainer/sweep/run_files.h"

namespace sluice {

namespace {

double train_loss(const RunMetrics& m, int64_t steps) {
  const size_t n = std::min(size_t(steps), m.losses.size());
  double sum = 0;
  for (size_t i = m.losses.size() - n; i < m.losses.size(); ++i) sum += m.losses[i];
  return sum / double(n);
}

struct Candidate {
  const SweepCandidate* is = nullptr;
  std::vector<std::string> dirs;
  std::vector<RunMetrics> metrics;  // of the runs that are done
  double loss = 0;                  // their mean, of the set that decides; NaN: not finite
};

class TableMaker {
 public:
  TableMaker(const SweepPlan& plan, const std::vector<FailedRun>& failed) : plan_(plan) {
    table_.name = plan.sweep.name;
    table_.label = plan.sweep.label;
    table_.baseline = plan.sweep.baseline.value_or("");
    table_.compute_unit = plan.sweep.compute_unit;
    table_.failed = failed;
  }

  SweepTable make() {
    if (wants("decode_ms"))
      table_.notes.push_back(fmt::format(
          "Decoding: one sequence on this machine's CPU, f32, {} tokens of context made up of "
          "random numbers of the caches' scale.",
          plan_.sweep.decode_context_tokens));
    for (const SweepRow& row : plan_.rows) {
      const Candidate best = best_of(row);
      if (best.metrics.empty()) continue;
      add_row(row, best);
    }
    add_columns();
    mark_noise();
    add_fits();
    return std::move(table_);
  }

 private:
  // Of those whose runs are all done, if there are any, the one with the lowest loss.
  Candidate best_of(const SweepRow& row) const {
    Candidate best;
    for (const SweepCandidate& c : row.candidates) {
      Candidate here{.is = &c, .dirs = {}, .metrics = {}, .loss = 0};
      for (const size_t i : c.runs) {
        const std::string dir = plan_.run_dir(plan_.runs[i]);
        if (read_status(dir).state != RunStatus::State::done) continue;
        here.dirs.push_back(dir);
        here.metrics.push_back(read_metrics(dir));
      }
      if (here.metrics.empty()) continue;
      here.loss = loss(row, here.metrics);
      const auto rank = [](const Candidate& x) {
        return std::tuple(-int64_t(x.metrics.size()), !std::isfinite(x.loss),
                          std::isfinite(x.loss) ? x.loss : 0);
      };
      if (best.metrics.empty() || rank(here) < rank(best)) best = std::move(here);
    }
    return best;
  }

  // What decides between settings, and what fits are of; 0 where neither is asked for, NaN where
  // it is not finite or was not measured.
  static double loss(const SweepRow& row, const std::vector<RunMetrics>& runs) {
    if (row.decides.empty()) return 0;
    double sum = 0;
    for (const RunMetrics& m : runs) {
      const auto set = m.valid.find(row.decides);
      if (set == m.valid.end() || !set->second.contains("loss"))
        return std::numeric_limits<double>::quiet_NaN();
      sum += set->second.at("loss");
    }
    return sum / double(runs.size());
  }

  void add_row(const SweepRow& row, const Candidate& best) {
    SweepTableRow out{.name = row.name,
                      .variant = row.variant,
                      .tuned = best.is->tuned,
                      .group = row.group,
                      .cell = row.cell,
                      .runs = best.dirs,
                      .cells = {}};
    // Of the runs that it shows: what was tuned is theirs.
    Config config = plan_.runs[best.is->runs.front()].config;
    for (const auto& [key, was, is] : config::diff(plan_.base, config))
      if (key.rfind("run.", 0) != 0) table_.config_differences[row.name][key] = is;
    config.model.vocab_size = row.vocab_size;
    const ModelSize size = model_size(config);
    table_.seeds = std::max(table_.seeds, int64_t(best.dirs.size()));
    const auto exact = [&](const std::string& key, double x) { out.cells[key].value = {x, {}, 1}; };
    if (row.matched) {
      exact("width", double(row.matched->after));
      exact("deviation_percent", 100 * row.matched->deviation);
    }
    exact("parameters", double(size.parameters));
    exact("active_parameters", double(size.active_parameters));
    exact("flops_per_token", size.flops_per_token);
    add_caches(config, exact);
    if (const auto& task = config.data.task)
      exact("chance", make_task(*task, config.data.seq_len_tokens)->facts().chance);
    std::map<std::string, std::vector<double>> measured;
    for (const RunMetrics& m : best.metrics) {
      if (!m.losses.empty())
        measured["train_ppl"].push_back(std::exp(train_loss(m, plan_.sweep.train_ppl_steps)));
      measured["tokens_per_second"].push_back(m.tokens_per_second);
      for (const auto& [set, fields] : m.valid)
        for (const auto& [field, value] : fields)
          measured[(field == "loss" ? "valid_ppl." : field + ".") + set].push_back(
              field == "loss" ? std::exp(value) : value);
    }
    for (const auto& [key, values] : measured) {
      if (std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); }))
        out.cells[key].value = mean_of(values);
      else
        table_.notes.push_back(cat(row.name, ": ", key, " is not finite"));
    }
    if (!row.decides.empty() && !measured.contains("valid_ppl." + row.decides))
      table_.notes.push_back(cat(row.name, ": ", row.decides, " was not measured"));
    laws_[row.law].push_back({compute(training_flops(config, size)), loss(row, best.metrics)});
    table_.rows.push_back(std::move(out));
  }

  template <class Exact>
  void add_caches(const Config& c, const Exact& exact) const {
    PlainStore params(DType::f32);
    const Lm lm(c.model, params);
    const GeneratorBytes bytes =
        cache_bytes(lm.make_cache(DType::f32, Device::cpu, 1, 1), {.slots = 1, .max_tokens = 1});
    const auto per_token = [&](int64_t tokens) {
      return double(bytes.cache_per_token) + double(bytes.state_per_slot) / double(tokens);
    };
    exact("kv_bytes_per_token_128k", per_token(128 << 10));
    exact("kv_bytes_per_token_1m", per_token(1 << 20));
    if (!wants("decode_ms")) return;
    exact("decode_ms", bench_decode(c, {.context_tokens = plan_.sweep.decode_context_tokens,
                                        .new_tokens = 8,
                                        .fill = ContextFill::made_up})["decode_ms"]);
  }

  double compute(double flops) const {
    return plan_.sweep.compute_unit == "flop" ? flops : flops / (1e15 * 86400);
  }

  bool wants(const std::string& column) const {
    const auto& t = plan_.sweep.table;
    return std::find(t.begin(), t.end(), column) != t.end();
  }

  // A column of the config is one column a validation set, where it is measured on these.
  void add_columns() {
    std::set<std::string> keys;
    for (const SweepTableRow& row : table_.rows)
      for (const auto& [key, cell] : row.cells) keys.insert(key);
    const auto add = [&](const SweepColumn& c) {
      for (const std::string& key : keys)
        if (key == c.key || key.rfind(c.key + ".", 0) == 0)
          table_.columns.push_back(
              {key, c.title + (key == c.key ? "" : " " + key.substr(c.key.size() + 1)), c.better,
               c.digits});
    };
    const int64_t last = plan_.sweep.train_ppl_steps;
    const std::vector<SweepColumn> known{
        {"parameters", "parameters", Better::neither, 0},
        {"active_parameters", "active", Better::neither, 0},
        {"flops_per_token", "FLOPs/token", Better::neither, 0},
        {"train_ppl", fmt::format("train PPL (last {} steps)", last), Better::lower, 3},
        {"valid_ppl", "valid PPL", Better::lower, 3},
        {"accuracy", "accuracy", Better::higher, 4},
        {"tokens_per_second", "tokens/s", Better::higher, 0},
        {"kv_bytes_per_token_128k", "KV bytes/token at 128k (f32)", Better::lower, 1},
        {"kv_bytes_per_token_1m", "KV bytes/token at 1M (f32)", Better::lower, 1},
        {"decode_ms", fmt::format("decode ms at {}", plan_.sweep.decode_context_tokens),
         Better::lower, 2}};
    if (plan_.sweep.match) {
      const std::string& by = plan_.sweep.match->by;
      add({"width", by.substr(by.rfind('.') + 1), Better::neither, 0});
      add({"deviation_percent", "deviation %", Better::neither, 3});
    }
    for (const std::string& name : plan_.sweep.table)
      for (const SweepColumn& c : known)
        if (c.key == name) {
          add(c);
          if (name == "accuracy") add({"chance", "chance", Better::neither, 4});
        }
  }

  // Against the best of each group, or the baseline of the same size and axes.
  void mark_noise() {
    const bool baseline = !table_.baseline.empty();
    const auto peers = [&](const SweepTableRow& r) { return baseline ? r.cell : r.group; };
    for (const SweepColumn& c : table_.columns) {
      if (c.better == Better::neither) continue;
      std::map<std::string, const SweepTableRow*> best;
      const auto value = [&](const SweepTableRow& r) { return r.cells.at(c.key).value; };
      for (const SweepTableRow& r : table_.rows) {
        if (!r.cells.contains(c.key)) continue;
        const SweepTableRow*& b = best[peers(r)];
        const bool better = !b || (c.better == Better::lower ? value(r).mean < value(*b).mean
                                                             : value(r).mean > value(*b).mean);
        if (baseline ? r.variant == table_.baseline : better) b = &r;
      }
      for (SweepTableRow& r : table_.rows)
        if (const SweepTableRow* b = best[peers(r)]; b && b != &r && r.cells.contains(c.key))
          r.cells[c.key].ns = within_noise(value(r), value(*b));
    }
  }

  void add_fits() {
    if (plan_.sweep.ladder.empty()) return;
    for (auto& [name, points] : laws_) {
      const size_t dropped = std::erase_if(points, [](const auto& p) {
        return !std::isfinite(p.first) || !std::isfinite(p.second);
      });
      if (dropped > 0)
        table_.notes.push_back(
            cat(name, ": ", dropped, " sizes without a finite loss are not in its power law"));
      if (points.size() < 2) continue;
      try {
        table_.fits.push_back({name, fit_power_law(points), points});
      } catch (const Error& e) {
        table_.notes.push_back(cat(name, " has no power law: ", e.what()));
      }
    }
  }

  const SweepPlan& plan_;
  SweepTable table_;
  std::map<std::string, std::vector<std::pair<double, double>>> laws_;
};

}  // namespace

SweepTable make_table(const SweepPlan& plan, const std::vector<FailedRun>& failed) {
  return TableMaker(plan, failed).make();
}

}  // namespace sluice
