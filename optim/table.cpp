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
  std::vector<int> ranks{};  // of its matrices
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

// "0 0 1 2", or of many "0-3 7": those that there are.
static std::string text_of(std::vector<int> ranks) {
  constexpr size_t kListed = 12;
  std::string text;
  if (ranks.size() <= kListed) {
    for (const int r : ranks) text += cat(" ", r);
    return text;
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    text += cat(" ", ranks[i]);
    if (end > i + 1) text += cat("-", ranks[end - 1]);
    i = end;
  }
  return text;
}

static Line line_of(const OptimConfig& config, const ParamSpec& spec, ParamId id,
                    const std::vector<MuonPlan>& plans) {
  const ParamSettings p = settings_of(config, spec);
  Line line{.owner = p.owner, .what = {}, .settings = {}, .count = {.tensors = 1}};
  line.what =
      fmt::format("{:<5} {:<40} {:>14}", name(p.owner), without_index(spec.name), shape_of(spec));
  line.settings = fmt::format("weight decay {:<4g} lr x {:g}", p.weight_decay, p.lr_scale);
  if (p.rule >= 0)
    line.settings += cat("  groups[", p.rule, "] ", config.groups[size_t(p.rule)].match);
  line.count.elements = spec.numel();
  if (p.owner != Owner::muon) return line;
  line.count.matrices = int64_t(matrices_of(spec, id).size());
  for (const MuonPlan& plan : plans)
    for (const OwnedMatrix& m : plan.matrices)
      if (m.is.param == id.index) line.ranks.push_back(m.owner);
  return line;
}

// How evenly Newton-Schulz is spread.
static std::string balance_of(const MuonPlan& plan) {
  int64_t sum = 0, most = 0;
  for (const int64_t c : plan.costs) sum += c, most = std::max(most, c);
  const double mean = double(sum) / double(plan.costs.size());
  return fmt::format(
      "muon  over {} ranks: {} matrices in {} rounds, largest cost over mean {:.2f}\n",
      plan.costs.size(), plan.matrices.size(), plan.rounds.size(),
      sum > 0 ? double(most) / mean : 1);
}

static std::vector<Line> lines_of(const OptimConfig& config, const ParamStore& params,
                                  const std::vector<MuonPlan>& plans) {
  std::vector<Line> lines;
  for (int i = 0; i < params.size(); ++i) {
    if (params.spec({i}).rule != UpdateRule::gradient) continue;
    const Line line = line_of(config, params.spec({i}), {i}, plans);
    const auto same = std::find_if(lines.begin(), lines.end(), [&](const Line& l) {
      return l.what == line.what && l.settings == line.settings;
    });
    if (same == lines.end()) {
      lines.push_back(line);
    } else {
      same->count.add(line.count);
      same->ranks.insert(same->ranks.end(), line.ranks.begin(), line.ranks.end());
    }
  }
  return lines;
}

static std::string qk_clip_line(const ParamStore& params, double threshold) {
  int64_t heads = 0;
  std::set<int> layers;
  for (int i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = params.spec({i});
    if (spec.heads.count > 0 && layers.insert(spec.group).second) heads += spec.heads.count;
  }
  return fmt::format("QK-clip holds {} heads of {} attention layers to logits of {:g}\n", heads,
                     layers.size(), threshold);
}

std::string settings_table(const OptimConfig& config, const ParamStore& params,
                           const std::vector<MuonPlan>& plans) {
  const std::vector<Line> lines = lines_of(config, params, plans);
  Count totals[2];  // by Owner
  for (const Line& l : lines) totals[size_t(l.owner)].add(l.count);
  std::string table;
  for (const Owner owner : {Owner::muon, Owner::adamw}) {
    for (const Line& l : lines) {
      if (l.owner != owner) continue;
      table += fmt::format("{} {:>4} tensors", l.what, l.count.tensors);
      if (owner == Owner::muon) table += fmt::format(" {:>5} matrices", l.count.matrices);
      table += fmt::format(" {:>10} elements  {}", l.count.elements, l.settings);
      table += l.ranks.empty() ? "\n" : "  ranks" + text_of(l.ranks) + "\n";
    }
    const Count& c = totals[size_t(owner)];
    if (c.tensors == 0) continue;
    table += fmt::format("{:<5} has {} tensors, {} elements", name(owner), c.tensors, c.elements);
    if (owner == Owner::muon)
      table += fmt::format(": {} Newton-Schulz calls a step, each of {} iterations", c.matrices,
                           config.muon.ns_steps);
    table += "\n";
  }
  for (const MuonPlan& plan : plans) table += balance_of(plan);
  if (config.qk_clip_threshold) table += qk_clip_line(params, *config.qk_clip_threshold);
  return table;
}

}  // namespace sluice
