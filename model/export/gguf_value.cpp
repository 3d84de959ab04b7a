// model/export/gguf_value.cpp -- keys' values and tensors, made and shown.
#include <algorithm>

#include "model/export/gguf.h"

namespace sluice {

using Type = GgufValue::Type;

GgufValue GgufValue::u32(uint64_t x) {
  return {Type::u32, false, std::vector<uint64_t>{x}};
}
GgufValue GgufValue::f32(double x) {
  return {Type::f32, false, std::vector<double>{x}};
}
GgufValue GgufValue::boolean(bool x) {
  return {Type::boolean, false, std::vector<uint64_t>{x ? 1u : 0u}};
}
GgufValue GgufValue::text(std::string x) {
  return {Type::text, false, std::vector<std::string>{std::move(x)}};
}
GgufValue GgufValue::list(std::vector<std::string> x) {
  return {Type::text, true, std::move(x)};
}
GgufValue GgufValue::i32_list(std::vector<int64_t> x) {
  return {Type::i32, true, std::move(x)};
}

size_t GgufValue::size() const {
  return std::visit([](const auto& v) { return v.size(); }, values);
}

std::string to_string(const GgufValue& v) {
  constexpr size_t kShown = 8, kShownBytes = 200;
  std::string out;
  const auto show = [&](const auto& x) {
    if constexpr (std::is_same_v<std::decay_t<decltype(x)>, std::string>)
      out += "\"" + x.substr(0, kShownBytes) + (x.size() > kShownBytes ? "...\"" : "\"");
    else if (v.type == Type::boolean)
      out += x ? "true" : "false";
    else
      out += cat(x);
  };
  std::visit(
      [&](const auto& values) {
        for (size_t i = 0; i < std::min(values.size(), kShown); ++i) {
          if (i > 0) out += ", ";
          show(values[i]);
        }
      },
      v.values);
  if (!v.is_list) return out;
  return cat("[", out, v.size() > kShown ? ", ..." : "", "] (", v.size(), ")");
}

int64_t GgufTensor::numel() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

int64_t GgufTensor::bytes() const {
  const GgufBlock& b = block_of(type);
  return numel() / b.elements * b.bytes;
}

std::string to_string(const GgufTensor& t) {
  std::string dims;
  for (const int64_t d : t.shape) dims += (dims.empty() ? "" : ", ") + std::to_string(d);
  return cat(block_of(t.type).name, " [", dims, "]");
}

}  // namespace sluice
