// trainer/sweep/settings.h -- lists of settings: crossed, named, and their problems collected.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "configs/reader.h"

namespace sluice {

using config::Setting;
using Settings = std::vector<Setting>;

bool is_seed(const std::string& key);  // one that repeats a run, and makes no other row of it

// One setting of each list, the last list fastest; of no lists: one choice of nothing.
std::vector<Settings> crossed(const std::vector<Settings>& lists);

std::string name_of(const Settings& chosen);  // "optim.lr=0.001 run.seed=2"
void append_word(std::string& name, const std::string& word);
std::string folder_name(std::string name);  // "0:1 rope run.seed=2" -> "0-1-rope-run.seed=2"

// Is one the other, or a section that it is in?
bool overlap(const std::string& a, const std::string& b);

// The problems of all runs, each once.
class SweepProblems {
 public:
  void add(const std::string& lines);
  void add(const Setting& at, const std::string& text);
  void throw_if_any() const;

 private:
  std::set<std::string> seen_;
  std::string all_;
};

}  // namespace sluice
