// trainer/report/series.h -- the numbers of one kind of event over steps, thinned for a page.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace sluice {

// One row a record, in the order of the steps. A cell that a record lacks, or that was not finite,
// is NaN.
struct Series {
  std::vector<int64_t> steps;
  std::map<std::string, std::vector<double>> fields;  // each as long as steps
  std::map<std::string, int64_t> not_finite;          // NaN and infinities, by field

  void add(int64_t step, const std::map<std::string, double>& record);
  void sort();  // by step; records of the same step stay as they were
};

// Rows are joined so that about `points` are left (log2 of the length times as many at the most).
// A joined row has the last step of its rows, and of each field their mean, least and largest: no
// extreme is lost. Rows are short at the start and grow to the same length, so that a logarithmic
// axis finds its early steps.
//
// {"steps": [..], "fields": {NAME: {"mean": [..], "least": [..], "most": [..], "not_finite": n}}}
// with null for "none of the rows has a number"; "least" and "most" only if they are not the mean,
// "not_finite" only if it is not 0. Numbers have six digits.
nlohmann::ordered_json thin(const Series& series, int64_t points);

// The end of the row that begins with row `begin`, if the long ones join `longest`.
int64_t joined_end(int64_t begin, int64_t longest);

}  // namespace sluice
