// trainer/sweep/settings.cpp
#include "trainer/sweep/settings.h"

#include <cctype>
#include <sstream>

#include "kernels/base/check.h"

namespace sluice {

bool is_seed(const std::string& key) {
  return key == "run.seed" || key == "data.seed";
}

std::vector<Settings> crossed(const std::vector<Settings>& lists) {
  std::vector<Settings> out{{}};
  for (const Settings& list : lists) {
    std::vector<Settings> longer;
    for (const Settings& before : out)
      for (const Setting& s : list) {
        longer.push_back(before);
        longer.back().push_back(s);
      }
    out = std::move(longer);
  }
  return out;
}

void append_word(std::string& name, const std::string& word) {
  if (!word.empty()) name += (name.empty() ? "" : " ") + word;
}

std::string name_of(const Settings& chosen) {
  std::string text;
  for (const Setting& s : chosen)
    append_word(text, s.key + "=" +
                          (s.value.IsNull()     ? "null"
                           : s.value.IsScalar() ? s.value.Scalar()
                                                : YAML::Dump(s.value)));
  return text;
}

std::string folder_name(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '=') c = '-';
  if (name[0] == '.') name[0] = '-';
  return name;
}

bool overlap(const std::string& a, const std::string& b) {
  const std::string &s = a.size() < b.size() ? a : b, &l = a.size() < b.size() ? b : a;
  return l.rfind(s, 0) == 0 && (l.size() == s.size() || l[s.size()] == '.');
}

void SweepProblems::add(const std::string& lines) {
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);)
    if (seen_.insert(line).second) all_ += (all_.empty() ? "" : "\n") + line;
}

void SweepProblems::add(const Setting& at, const std::string& text) {
  add(cat(at.from, ": ", at.key, ": ", text));
}

void SweepProblems::throw_if_any() const {
  if (!all_.empty()) throw Error(all_);
}

}  // namespace sluice
