// trainer/sweep/config.h -- a sweep file: a base config, named variants, and what is made of their
// runs.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/reader.h"

namespace sluice {

// A name and the keys that it changes.
struct SweepVariant {
  std::string name;
  std::vector<config::Setting> set;

  template <class V>
  void visit(V& v) {
    v("name", name, "a name", [](const std::string& s) { return !s.empty(); });
    v.settings("set", set, "keys of the config, each with a value");
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    if (!name.empty()) return {};
    return {{"name", "expected a name, which is missing"}};
  }
};

// Each variant's width `by` is chosen so that all have the `what` of variant `to`.
struct MatchConfig {
  std::string what = "parameters";             // parameters | flops: of training, a token
  std::string by = "model.intermediate_size";  // an integer key
  double tolerance = 0.005;                    // of the relative deviation
  std::optional<std::string> to;               // null: the first variant
  int64_t multiple_of = 1;                     // widths that the model or its kernels can have

  template <class V>
  void visit(V& v) {
    v("what", what, "parameters or flops",
      [](const std::string& s) { return s == "parameters" || s == "flops"; });
    v("by", by, "a key with a count", [](const std::string& s) { return !s.empty(); });
    v("tolerance", tolerance, "a number above 0 and below 1",
      [](double x) { return x > 0 && x < 1; });
    v("to", to, "null (the first) or a variant's name", [](const auto&) { return true; });
    v("multiple_of", multiple_of, "a count above 0", [](int64_t x) { return x > 0; });
  }
};

// Children at once: "auto", a count, or "slurm".
inline bool is_parallel_runs(const std::string& s) {
  int n = 0;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), n);
  return s == "auto" || s == "slurm" ||
         (r.ec == std::errc() && r.ptr == s.data() + s.size() && n > 0);
}

bool are_columns(const std::vector<std::string>& names);  // that `table` may name
std::string column_names();
struct SweepConfig {
  std::string name = "sweep";
  std::string dir = "runs/sweep";
  std::string label;    // printed on top of the table: "smoke test of the pipeline, not evidence"
  std::string base;     // a config, from this file's folder
  std::string prepare;  // the command that makes the data, for the message that it is missing
  std::vector<config::Setting> set;  // of all variants
  std::vector<SweepVariant> variants;
  std::vector<SweepVariant> ladder;                // sizes, crossed with the variants
  std::vector<std::vector<config::Setting>> axes;  // keys and values, crossed with the variants
  std::vector<std::vector<config::Setting>> tune;  // the same; of these each row keeps its best
  std::optional<std::string> select;  // validation set that tune and fits go by; null: the only one
  std::optional<MatchConfig> match;
  std::optional<std::string> baseline;  // variant that others are compared with; null: the best
  std::vector<std::string> table = {"parameters", "train_ppl", "valid_ppl", "tokens_per_second"};
  int64_t train_ppl_steps = 20;  // the last ones, whose mean loss gives train_ppl
  int64_t decode_context_tokens = 131072;
  std::string compute_unit = "flop";  // flop | pflops_days: of the ladder's fits
  std::string parallel_runs = "auto";
  std::vector<std::string> slurm;  // options of sbatch: "--time=04:00:00"

  template <class V>
  void visit(V& v);
  std::vector<std::pair<std::string, std::string>> problems() const;
};

template <class V>
void SweepConfig::visit(V& v) {
  const auto text = [](const std::string& s) { return !s.empty(); };
  const auto any = [](const auto&) { return true; };
  const auto positive = [](int64_t x) { return x > 0; };
  v("name", name, "a name", text);
  v("dir", dir, "a folder", text);
  v("label", label, "a line of text", any);
  v("base", base, "a config's file", text);
  v("prepare", prepare, "a command", any);
  v.settings("set", set, "keys of the config, each with a value");
  v.list("variants", variants, "a list of {name, set}");
  v.list("ladder", ladder, "a list of {name, set}");
  v.choices("axes", axes, "keys of the config, each with a list of values");
  v.choices("tune", tune, "keys of the config, each with a list of values");
  v("select", select, "null (the only one) or the name of a validation set", any);
  v.optional_section("match", match);
  v("baseline", baseline, "null (the best) or a variant's name", any);
  v("table", table, "a list of columns: " + column_names(), are_columns);
  v("train_ppl_steps", train_ppl_steps, "a count above 0", positive);
  v("decode_context_tokens", decode_context_tokens, "a count above 0", positive);
  v("compute_unit", compute_unit, "flop or pflops_days",
    [](const std::string& s) { return s == "flop" || s == "pflops_days"; });
  v("parallel_runs", parallel_runs, "auto, slurm or a count above 0", is_parallel_runs);
  v("slurm", slurm, "a list of options of sbatch", any);
}

}  // namespace sluice
