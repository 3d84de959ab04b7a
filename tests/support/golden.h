// tests/support/golden.h -- tensors that other programs computed.
#pragma once

#include <cstring>

#include "kernels/tensor/buffer.h"
#include "model/export/safetensors.h"
#include "tests/support/error.h"

namespace sluice::test {

// A tensor of f64, f32 or bf16.
inline std::vector<double> golden_values(const SafetensorsReader& file, const std::string& name) {
  const SafetensorsEntry* e = file.find(name);
  SLUICE_CHECK(e, file.path(), " has no ", name);
  const Buffer raw(e->dtype, {e->numel()});
  file.read_slice(name, 0, raw.view());
  std::vector<double> values;
  for (int64_t i = 0; i < e->numel(); ++i) {
    if (e->dtype != DType::bf16) {
      values.push_back(element(raw.view(), i));
    } else {
      const uint32_t bits = uint32_t(static_cast<const uint16_t*>(raw.view().data)[i]) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      values.push_back(double(value));
    }
  }
  return values;
}

}  // namespace sluice::test
