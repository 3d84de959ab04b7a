// trainer/sweep/plan.cpp -- settings crossed, applied to the base, matched, compared.
#include "trainer/sweep/plan.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "configs/schema.h"
#include "data/tasks/task.h"
#include "data/tokenizer/tokenizer.h"
#include "trainer/sweep/plan_checks.h"
#include "trainer/sweep/settings.h"

namespace sluice {

namespace {

class Planner {
 public:
  Planner(const std::string& file, const std::vector<std::string>& overrides) : file_(file) {
    plan_.sweep = config::load<SweepConfig>(file, overrides);
    base_file_ = (std::filesystem::path(file).parent_path() / plan_.sweep.base).lexically_normal();
    base_text_ = config::read_file(base_file_);
    plan_.base = config::load_string<Config>(base_text_, base_file_);
  }

  SweepPlan plan() {
    check_keys();
    cross();
    problems_.throw_if_any();
    for (SweepRow& row : plan_.rows) row.decides = deciding_set(row);
    problems_.throw_if_any();
    for (SweepRow& row : plan_.rows) {
      const Config c = with_vocabulary(row.config);
      row.vocab_size = *c.model.vocab_size;
      row.model = model_size(c);
    }
    if (plan_.sweep.match) match(*plan_.sweep.match);
    problems_.throw_if_any();
    check_ladder();
    problems_.throw_if_any();
    make_runs();
    problems_.throw_if_any();
    check_runs();
    problems_.throw_if_any();
    return std::move(plan_);
  }

 private:
  // No two places may say what a key is: the last one would win in silence. `set` alone is what
  // variants and sizes start from: they may replace its values.
  void check_keys() {
    const SweepConfig& s = plan_.sweep;
    std::vector<Settings> once;  // a key may be in one of these only
    for (const auto* axes : {&s.axes, &s.tune})
      for (const Settings& axis : *axes) once.push_back({axis.front()});
    for (const Settings& axis : s.tune)
      if (overlap(axis.front().key, "model"))
        problems_.add(axis.front(), "expected a key of training, the model is the row's");
    const auto check = [&](const SweepVariant& v, size_t until) {
      for (const Setting& set : v.set)
        for (size_t i = 0; i < until; ++i)
          for (const Setting& other : once[i])
            if (overlap(set.key, other.key))
              problems_.add(set,
                            cat("given by ", v.name, " and at ", other.from, " as ", other.key));
    };
    for (size_t i = 0; i < once.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (overlap(once[i][0].key, once[j][0].key))
          problems_.add(once[i][0], cat("is at ", once[j][0].from, " as ", once[j][0].key));
    const size_t axes = once.size();
    check({"set", s.set}, axes);
    for (const SweepVariant& v : s.variants) check(v, axes);
    for (const SweepVariant& v : s.variants) once.push_back(v.set);
    const size_t variants = once.size();
    for (const SweepVariant& l : s.ladder) check(l, variants);
    for (const SweepVariant& l : s.ladder) once.push_back(l.set);
    once.push_back(s.set);
    for (const auto& list : once)
      for (const Setting& set : list) check_free(set);
  }
  void check_free(const Setting& s) {
    for (const char* ours : {"run.name", "run.dir", "run.threads"})
      if (overlap(s.key, ours)) problems_.add(s, cat(ours, " is given by the sweep"));
  }

  void cross() {
    const SweepConfig& s = plan_.sweep;
    std::vector<Settings> axes, seeds;
    for (const Settings& axis : s.axes) (is_seed(axis.front().key) ? seeds : axes).push_back(axis);
    seeds_ = crossed(seeds);
    tunes_ = crossed(s.tune);
    const std::vector<SweepVariant> variants =
        s.variants.empty() ? std::vector<SweepVariant>{{"base", {}}} : s.variants;
    const std::vector<SweepVariant> sizes =
        s.ladder.empty() ? std::vector<SweepVariant>{{"", {}}} : s.ladder;
    for (const SweepVariant& size : sizes)
      for (const SweepVariant& v : variants)
        for (const Settings& chosen : crossed(axes)) {
          Settings all = s.set;
          for (const Settings* more : {&size.set, &v.set, &chosen})
            all.insert(all.end(), more->begin(), more->end());
          SweepRow row;
          row.name = row.variant = v.name;
          row.size = size.name;
          row.law = v.name;
          append_word(row.law, name_of(chosen));
          append_word(row.name, size.name);
          append_word(row.name, name_of(chosen));
          row.group = row.cell = size.name;
          append_word(row.cell, name_of(chosen));
          for (const Setting& s : chosen)
            if (overlap(s.key, "data")) append_word(row.group, name_of({s}));
          row.config = config_with(all, {&seeds_.front(), &tunes_.front()});
          plan_.rows.push_back(std::move(row));
          settings_.push_back(std::move(all));
        }
  }

  Config config_with(Settings all, const std::vector<const Settings*>& more) {
    for (const Settings* m : more) all.insert(all.end(), m->begin(), m->end());
    try {
      return config::load_string_with<Config>(base_text_, base_file_, all);
    } catch (const Error& e) {
      problems_.add(e.what());
      return plan_.base;
    }
  }

  // The validation set that tune and fits go by.
  std::string deciding_set(const SweepRow& row) {
    const SweepConfig& s = plan_.sweep;
    std::vector<std::string> sets;
    for (const auto& [name, path] : row.config.data.validation) sets.push_back(name);
    const auto& task = row.config.data.task;
    if (task) sets = {"task"};
    if (s.select) {
      if (task)
        for (const int64_t length : task->validation_lengths_tokens)
          sets.push_back(cat("task_", length));
      if (std::find(sets.begin(), sets.end(), *s.select) == sets.end())
        problems_.add(
            cat(file_, ": select: ", row.name, " has no validation set \"", *s.select, "\""));
      return *s.select;
    }
    if (sets.size() == 1) return sets.front();
    if (!s.tune.empty() || !s.ladder.empty())
      problems_.add(cat(file_, ": select: expected the validation set that tune and fits go by, ",
                        row.name, " has ", sets.size()));
    return "";
  }

  Config with_vocabulary(Config c) {
    if (c.model.vocab_size) return c;
    if (c.data.task) {
      c.model.vocab_size = int64_t(task_words(*c.data.task).size());
      return c;
    }
    int64_t& size = vocabulary_[c.data.tokenizer];
    if (size == 0 && !std::filesystem::exists(c.data.tokenizer))
      throw missing_data({c.data.tokenizer}, plan_.sweep);
    if (size == 0) size = Tokenizer::load(c.data.tokenizer).vocab_size();
    c.model.vocab_size = size;
    return c;
  }

  static double counted(const MatchConfig& m, const ModelSize& size) {
    return m.what == "flops" ? size.flops_per_token : double(size.parameters);
  }

  void match(const MatchConfig& m) {
    const std::string to = m.to ? *m.to : plan_.rows.front().variant;
    for (size_t i = 0; i < plan_.rows.size(); ++i) {
      SweepRow& row = plan_.rows[i];
      // Of the same size and axes; the target's own rows keep their width.
      const auto target =
          std::find_if(plan_.rows.begin(), plan_.rows.end(),
                       [&](const SweepRow& r) { return r.variant == to && r.cell == row.cell; });
      SLUICE_CHECK(target != plan_.rows.end(), file_, ": match.to: there is no variant ", to);
      const int64_t before = width_of(row.config, m.by);
      if (&row == &*target) {
        row.matched = {before, before, 0};
        continue;
      }
      const double count = counted(m, target->model);
      try {
        const Width w =
            solve_width([&](int64_t x) { return counted(m, model_size(wide(i, m, x))); }, count,
                        m.multiple_of, m.tolerance);
        settings_[i].push_back(width_setting(m, w.width));
        row.config = wide(i, m, w.width);
        row.model = model_size(row.config);
        row.matched = {before, w.width, w.count / count - 1};
      } catch (const Error& e) {
        problems_.add(cat(file_, ": match: ", row.name, " by ", m.by, ": ", e.what()));
      }
    }
  }

  int64_t width_of(const Config& c, const std::string& key) const {
    for (const config::Line& l : config::flatten(c)) {
      int64_t width = 0;
      if (l.path == key && config::decode(YAML::Load(l.value), width)) return width;
    }
    throw Error(cat(file_, ": match.by: expected a key with a count, got \"", key, "\""));
  }
  Setting width_setting(const MatchConfig& m, int64_t width) const {
    return {m.by, YAML::Node(width), cat(file_, ": match.by=", width)};
  }
  Config wide(size_t row, const MatchConfig& m, int64_t width) {
    Settings all = settings_[row];
    all.push_back(width_setting(m, width));
    for (const Settings* more : {&seeds_.front(), &tunes_.front()})
      all.insert(all.end(), more->begin(), more->end());
    return with_vocabulary(config::load_string_with<Config>(base_text_, base_file_, all));
  }

  // A power law needs sizes of different compute.
  void check_ladder() {
    if (plan_.sweep.ladder.size() < 2) return;
    std::map<std::string, std::set<double>> flops;
    for (const SweepRow& row : plan_.rows)
      flops[row.law].insert(training_flops(row.config, row.model));
    for (const auto& [law, different] : flops)
      if (different.size() < 2)
        problems_.add(cat(file_, ": ladder: ", law, ": all sizes have the same compute, ",
                          *different.begin(), " FLOPs: no power law goes through them"));
  }

  void make_runs() {
    for (size_t i = 0; i < plan_.rows.size(); ++i)
      for (const Settings& tune : tunes_) {
        SweepCandidate c{name_of(tune), {}};
        for (const Settings& seed : seeds_) {
          SweepRun run;
          run.name = plan_.rows[i].name;
          append_word(run.name, c.tuned);
          append_word(run.name, name_of(seed));
          run.name = folder_name(run.name);
          run.config = config_with(settings_[i], {&seed, &tune});
          run.config.run.name = run.name;
          run.config.run.dir = plan_.run_dir(run);
          run.config.run.threads.reset();
          c.runs.push_back(plan_.runs.size());
          plan_.runs.push_back(std::move(run));
        }
        plan_.rows[i].candidates.push_back(std::move(c));
      }
  }

  void check_runs() {
    std::map<std::string, std::string> by_config, by_name;
    for (size_t i = 0; i < plan_.runs.size(); ++i) {
      const SweepRun& run = plan_.runs[i];
      if (!run.config.metrics.jsonl)
        problems_.add(cat(file_, ": metrics.jsonl: ", run.name,
                          " has false, expected true: the table is made of it"));
      if (!by_name.emplace(run.name, run.name).second)
        problems_.add(cat(file_, ": two runs have the folder ", run.name));
      const auto [same, fresh] = by_config.emplace(essence(run.config), run.name);
      if (!fresh) problems_.add(cat(file_, ": ", same->second, " and ", run.name, " are the same"));
      const SweepRun& first = plan_.runs[i % seeds_.size()];
      if (run.config.data.seed != first.config.data.seed)
        problems_.add(cat(file_, ": data.seed: ", run.name, " has ", run.config.data.seed, ", ",
                          first.name, " has ", first.config.data.seed,
                          "; expected the same order of the data for all"));
    }
  }

  std::string file_, base_file_, base_text_;
  SweepPlan plan_;
  SweepProblems problems_;
  std::vector<Settings> settings_;  // by row, with its width
  std::vector<Settings> seeds_, tunes_;
  std::map<std::string, int64_t> vocabulary_;
};

}  // namespace

SweepPlan plan_sweep(const std::string& file, const std::vector<std::string>& overrides) {
  return Planner(file, overrides).plan();
}

}  // namespace sluice
