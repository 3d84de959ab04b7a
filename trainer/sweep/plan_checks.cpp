// trainer/sweep/plan_checks.cpp -- configs compared, files looked for.
#include "trainer/sweep/plan_checks.h"

#include <algorithm>
#include <filesystem>

#include "configs/schema.h"

namespace sluice {

std::string essence(Config c) {
  c.run.name = c.run.dir = "";
  c.metrics = {};
  c.checkpoint = {};
  LmConfig& m = c.model;
  m.layers = m.pattern();
  m.ratio = m.linear = m.full = "";
  const auto has = [&](const std::string& kind) {
    return std::find(m.layers.begin(), m.layers.end(), kind) != m.layers.end();
  };
  if (!has("kda") && !has("gdn") && !has("mamba2")) m.kda = {};
  if (!has("mla")) m.mla = {};
  if (m.mla.use_nope) m.mla.rope_theta = MlaConfig{}.rope_theta;
  if (m.ffn == "dense") m.moe = {};
  if (c.optim.kind == "adamw") c.optim.muon = {};
  if (auto& task = c.data.task) {
    if (task->kind != "palindrome") task->palindrome = {};
    if (task->kind != "mqar") task->mqar = {};
    if (task->kind != "stack") task->stack = {};
  }
  return config::print(c);
}

ExitError missing_data(const std::set<std::string>& files, const SweepConfig& sweep) {
  std::string text = "data is missing:";
  for (const std::string& path : files) text += "\n  " + path;
  if (!sweep.prepare.empty()) text += "\nmake it with: " + sweep.prepare;
  return {ExitCode::data, text};
}

void check_data(const SweepPlan& plan) {
  std::set<std::string> files;
  for (const SweepRow& row : plan.rows) {
    const DataConfig& d = row.config.data;
    if (d.task) continue;
    files.insert(d.tokenizer);
    for (const DataSource& s : d.train) files.insert(s.path);
    for (const auto& [name, path] : d.validation) files.insert(path);
  }
  std::erase_if(files, [](const std::string& path) { return std::filesystem::exists(path); });
  if (!files.empty()) throw missing_data(files, plan.sweep);
}

}  // namespace sluice
