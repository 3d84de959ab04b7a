// trainer/loop/value_stats.h -- what `sluice inspect` says of a tensor's values.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>

#include "kernels/tensor/tensor.h"

namespace sluice {

struct ValueStats {
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  double squares = 0, least = kInfinity, most = -kInfinity;  // of the finite ones
  int64_t nonfinite = 0;

  void add(double x);
  void add(const Tensor& t);  // dense, on the host
};

nlohmann::ordered_json json_number(double x);  // or its name: "nan", "inf", "-inf"

// "nonfinite", "norm", "min", "max"; the last two are null without a finite value.
void add_values(const ValueStats& s, nlohmann::ordered_json& tensor);

}  // namespace sluice
