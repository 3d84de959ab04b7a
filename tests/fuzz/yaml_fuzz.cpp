// tests/fuzz/yaml_fuzz.cpp -- any text: an Error that lists problems, or a config whose print reads
// as the same config.
#include <cstdlib>

#include "configs/schema.h"
#include "trainer/loop/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const Config c = config::load_string<Config>(text, "fuzz.yaml");
    const std::string printed = config::print(c);
    if (config::print(config::load_string<Config>(printed, "printed.yaml")) != printed)
      std::abort();
  } catch (const Error&) {
  }
  return 0;
}
