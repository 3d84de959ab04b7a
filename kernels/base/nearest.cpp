// kernels/base/nearest.cpp -- edit distance by one row of the table.
#include "kernels/base/nearest.h"

#include <algorithm>
#include <numeric>

namespace sluice {

static size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t(0));
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::string nearest_name(const std::vector<std::string>& known, const std::string& name) {
  std::string best;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& k : known) {
    const size_t d = edit_distance(k, name);
    if (d < least) {
      least = d;
      best = k;
    }
  }
  return best;
}

}  // namespace sluice
