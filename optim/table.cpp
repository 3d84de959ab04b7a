// optim/table.cpp -- tensors gathered under the names that they share.
#include "optim/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "optim/matrices.h"

namespace sluice {

namespace {

struct Count {
  int64_t tensors = 0, matrices = 0, elements = 0;

  void add(const Count& c) {
    tensors += c.tensors;
    matrices += c.matrices;
    elements += c.elements;
  }
};
struct Line {
  Owner owner;
  std::string what, settings;
  Count count;
};

}  // namespace

static const char* name(Owner owner) {
  return owner == Owner::muon ? "muon" : "adamw";
}

// "layers.12.kda.o_proj" -> "layers.*.kda.o_proj"
static std::string without_index(const std::string& name) {
  std::string pattern;
  for (size_t i = 0; i < name.size();) {
    const size_t end = std::min(name.find('.', i), name.size());
    const std::string part = name.substr(i, end - i);
    const bool index = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    pattern += (i > 0 ? "." : "") + (index ? "*" : part);
    i = end + 1;
  }
  return pattern;
}

static std::string shape_of(const ParamSpec& spec) {
  std::string text;
  for (const int64_t d : spec.shape) text += cat(text.empty() ? "[" : ", ", d);
  return text + "]";
}

static Line line_of(const OptimConfig& config, const ParamSpec& spec, const Shard& shard,
                    const ParamSettings& p) {
  Line line{.owner = p.owner, .what = {}, .settings = {}, .count = {.tensors = 1}};
  line.what =
      fmt::format("{:<5} {:<40} {:>14}", name(p.owner), without_index(spec.name), shape_of(spec));
  line.settings = fmt::format("weight decay {:<4g} lr x {:g}", p.weight_decay, p.lr_scale);
  if (p.rule >= 0)
    line.settings += cat("  groups[", p.rule, "] ", config.groups[size_t(p.rule)].match);
  line.count.elements = shard.master.numel();
  if (p.owner == Owner::muon)
    for (const MatrixRun& r : matrix_runs(spec, shard.begin, shard.master.numel()))
      line.count.matrices += r.count;
  return line;
}

std::string settings_table(const OptimConfig& config, const ParamStore& params,
                           const std::vector<ParamSettings>& settings) {
  const std::vector<Shard> shards = params.trained_shards();
  std::vector<Line> lines;
  Count totals[2];  // by Owner
  for (size_t i = 0; i < settings.size(); ++i) {
    const Line line = line_of(config, params.spec(shards[i].id), shards[i], settings[i]);
    totals[size_t(line.owner)].add(line.count);
    const auto same = std::find_if(lines.begin(), lines.end(), [&](const Line& l) {
      return l.what == line.what && l.settings == line.settings;
    });
    if (same == lines.end())
      lines.push_back(line);
    else
      same->count.add(line.count);
  }
  std::string table;
  for (const Owner owner : {Owner::muon, Owner::adamw}) {
    for (const Line& l : lines) {
      if (l.owner != owner) continue;
      table += fmt::format("{} {:>4} tensors", l.what, l.count.tensors);
      if (owner == Owner::muon) table += fmt::format(" {:>5} matrices", l.count.matrices);
      table += fmt::format(" {:>10} elements  {}\n", l.count.elements, l.settings);
    }
    const Count& c = totals[size_t(owner)];
    if (c.tensors == 0) continue;
    table += fmt::format("{:<5} has {} tensors, {} elements", name(owner), c.tensors, c.elements);
    if (owner == Owner::muon)
      table += fmt::format(": {} Newton-Schulz calls a step, each of {} iterations", c.matrices,
                           config.muon.ns_steps);
    table += "\n";
  }
  if (config.qk_clip_threshold) {
    int64_t heads = 0;
    std::set<int> layers;
    for (int i = 0; i < params.size(); ++i) {
      const ParamSpec& spec = params.spec({i});
      if (spec.heads.count > 0 && layers.insert(spec.group).second) heads += spec.heads.count;
    }
    table += fmt::format("QK-clip holds {} heads of {} attention layers to logits of {:g}\n", heads,
                         layers.size(), *config.qk_clip_threshold);
  }
  return table;
}

}  // namespace sluice
