// tests/fuzz/gguf_fuzz.cpp -- any bytes: an Error, or keys and tensors that can all be read.
#include "model/export/gguf.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  static fuzz::MemoryFile file("gguf");
  const std::string& path = file.fill(data, size);
  try {
    const GgufReader reader(path);
    for (const auto& [key, value] : reader.keys())
      if (!reader.find(key) || (value.is_list && to_string(value).empty())) std::abort();
    int64_t bytes = 0;
    for (const GgufTensor& t : reader.tensors()) {
      bytes += t.bytes();
      if (bytes > int64_t(size)) std::abort();  // the file has no more
      if (!can_encode(t.type)) continue;
      std::vector<float> values(size_t(t.numel()));
      reader.read(t, 0, t.numel(), values.data());
    }
  } catch (const Error&) {
  }
  return 0;
}
