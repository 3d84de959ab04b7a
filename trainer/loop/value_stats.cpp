// trainer/loop/value_stats.cpp -- one pass over a tensor.
#include "trainer/loop/value_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

namespace sluice {

using Json = nlohmann::ordered_json;

void ValueStats::add(double x) {
  if (!std::isfinite(x)) {
    ++nonfinite;
    return;
  }
  squares += x * x;
  least = std::min(least, x);
  most = std::max(most, x);
}

void ValueStats::add(const Tensor& t) {
  const auto each = [&](const auto* x) {
    for (int64_t i = 0; i < t.numel(); ++i) add(double(x[i]));
  };
  switch (t.dtype) {
    case DType::f32: return each(t.as<float>());
    case DType::f64: return each(t.as<double>());
    case DType::i32: return each(t.as<int32_t>());
    case DType::i64: return each(t.as<int64_t>());
    case DType::u8: return each(t.as<uint8_t>());
    case DType::bf16:
      for (int64_t i = 0; i < t.numel(); ++i) {
        const uint32_t wide = uint32_t(static_cast<const uint16_t*>(t.data)[i]) << 16;
        float x;
        std::memcpy(&x, &wide, sizeof x);
        add(double(x));
      }
  }
}

Json json_number(double x) {
  return std::isfinite(x) ? Json(x) : Json(std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
}

void add_values(const ValueStats& s, Json& tensor) {
  tensor["nonfinite"] = s.nonfinite;
  tensor["norm"] = json_number(std::sqrt(s.squares));
  const bool any = s.least <= s.most;
  tensor["min"] = any ? Json(s.least) : Json();
  tensor["max"] = any ? Json(s.most) : Json();
}

}  // namespace sluice
