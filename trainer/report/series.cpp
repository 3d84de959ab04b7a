// trainer/report/series.cpp -- joins rows, keeps their extremes.
#include "trainer/report/series.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;

Json six_digits(double x) {
  return std::isnan(x) ? Json() : Json(std::stod(fmt::format("{:.6g}", x)));
}

// Of the finite ones of rows [begin, end).
struct Joined {
  double mean = NAN, least = NAN, most = NAN;
};
Joined join(const std::vector<double>& values, int64_t begin, int64_t end) {
  Joined j;
  double sum = 0, count = 0;
  for (int64_t i = begin; i < end; ++i) {
    const double x = values[size_t(i)];
    if (std::isnan(x)) continue;
    j.least = std::fmin(j.least, x);
    j.most = std::fmax(j.most, x);
    sum += x;
    ++count;
  }
  if (count > 0) j.mean = sum / count;
  return j;
}

Json field_json(const std::vector<double>& values, const std::vector<int64_t>& ends) {
  Json mean = Json::array(), least = Json::array(), most = Json::array();
  int64_t begin = 0;
  for (const int64_t end : ends) {
    const Joined j = join(values, begin, end);
    mean.push_back(six_digits(j.mean));
    least.push_back(six_digits(j.least));
    most.push_back(six_digits(j.most));
    begin = end;
  }
  const bool joined = least != mean || most != mean;
  Json field = {{"mean", std::move(mean)}};
  if (joined) {
    field["least"] = std::move(least);
    field["most"] = std::move(most);
  }
  return field;
}

}  // namespace

void Series::add(int64_t step, const std::map<std::string, double>& record) {
  const size_t before = steps.size();
  steps.push_back(step);
  for (const auto& [name, value] : record) {
    std::vector<double>& values = fields.try_emplace(name, before, NAN).first->second;
    values.push_back(std::isfinite(value) ? value : NAN);
    if (!std::isfinite(value)) ++not_finite[name];
  }
  for (auto& [name, values] : fields) values.resize(before + 1, NAN);
}

void Series::sort() {
  if (std::is_sorted(steps.begin(), steps.end())) return;
  std::vector<size_t> order(steps.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return steps[a] < steps[b]; });
  const auto permute = [&](auto& values) {
    const auto old = values;
    for (size_t i = 0; i < order.size(); ++i) values[i] = old[order[i]];
  };
  permute(steps);
  for (auto& [name, values] : fields) permute(values);
}

// One in 64 of what came before: a constant width on a logarithmic axis, until `longest`.
int64_t joined_end(int64_t begin, int64_t longest) {
  return begin + std::clamp<int64_t>(begin / 64, 1, std::max<int64_t>(longest, 1));
}

nlohmann::ordered_json thin(const Series& series, int64_t points) {
  const auto rows = int64_t(series.steps.size());
  const int64_t longest = (rows + points - 1) / points;
  std::vector<int64_t> ends;
  for (int64_t at = 0; at < rows; at = ends.back())
    ends.push_back(std::min(rows, joined_end(at, longest)));
  Json steps = Json::array(), fields = Json::object();
  for (const int64_t end : ends) steps.push_back(series.steps[size_t(end - 1)]);
  for (const auto& [name, values] : series.fields) {
    fields[name] = field_json(values, ends);
    const auto bad = series.not_finite.find(name);
    if (bad != series.not_finite.end()) fields[name]["not_finite"] = bad->second;
  }
  return {{"steps", std::move(steps)}, {"fields", std::move(fields)}};
}

}  // namespace sluice
