// tests/fuzz/safetensors_fuzz.cpp -- any bytes: an Error, or tensors that can all be read.
#include "model/export/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  static fuzz::MemoryFile file("safetensors");
  const std::string& path = file.fill(data, size);
  try {
    const SafetensorsReader reader(path);
    int64_t bytes = 0;
    for (const SafetensorsEntry& e : reader.entries()) {
      bytes += e.end - e.begin;
      std::vector<char> values(size_t(e.end - e.begin));
      reader.read_slice(e.name, 0, make_tensor(values.data(), e.dtype, Device::cpu, {e.numel()}));
      if (to_string(e).empty() || !reader.find(e.name)) std::abort();
    }
    if (bytes > int64_t(size)) std::abort();  // the file has no more
  } catch (const Error&) {
  }
  return 0;
}
