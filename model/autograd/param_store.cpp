// model/autograd/param_store.cpp -- the names and shapes that every store shares.
#include "model/autograd/param_store.h"

#include <algorithm>

#include "kernels/base/nearest.h"

namespace sluice {

int ParamStore::add_group(std::string name) {
  group_names_.push_back(std::move(name));
  return int(group_names_.size()) - 1;
}

ParamId ParamStore::add(const ParamSpec& spec) {
  SLUICE_CHECK(spec.group >= 0 && spec.group < groups(), spec.name, " is in group ", spec.group,
               " of ", groups());
  for (const ParamSpec& s : specs_)
    SLUICE_CHECK(s.name != spec.name, "parameter \"", spec.name, "\" is added twice");
  int64_t rows = 0;
  for (const RowBlock& b : spec.row_blocks) rows += b.rows;
  const int64_t has = spec.shape.at(spec.shape.size() == 3 ? 1 : 0);
  SLUICE_CHECK(spec.row_blocks.empty() || rows == has, spec.name, " has ", has,
               " rows, its row blocks ", rows);
  specs_.push_back(spec);
  return {int(specs_.size()) - 1};
}

ParamId ParamStore::find(const std::string& name) const {
  std::vector<std::string> names;
  for (const ParamSpec& s : specs_) names.push_back(s.name);
  const auto at = std::find(names.begin(), names.end(), name);
  const std::string nearest = at == names.end() ? nearest_name(names, name) : "";
  SLUICE_CHECK(at != names.end(), "no parameter \"", name, "\"",
               nearest.empty() ? "" : "; the nearest is \"" + nearest + "\"");
  return {int(at - names.begin())};
}

std::vector<Shard> ParamStore::trained_shards() const {
  std::vector<Shard> list;
  for (const Shard& s : shards())
    if (spec(s.id).rule == UpdateRule::gradient) list.push_back(s);
  return list;
}

int64_t ParamStore::numel() const {
  int64_t n = 0;
  for (const ParamSpec& s : specs_) n += s.numel();
  return n;
}

}  // namespace sluice
