// trainer/loop/fingerprint.cpp -- read off the machine and the build.
#include "trainer/loop/fingerprint.h"

#include <fstream>

#include "kernels/gemm/gemm.h"

namespace sluice {

static std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  std::string model, flags;
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (model.empty() && line.rfind("model name", 0) == 0) model = line.substr(colon + 2);
    if (flags.empty() && line.rfind("flags", 0) == 0) flags = line.substr(colon + 2);
  }
  const char* isa = flags.find("avx512f") != std::string::npos ? "avx512"
                    : flags.find("avx2") != std::string::npos  ? "avx2"
                                                               : "other";
  return model + ", " + isa;
}

std::map<std::string, std::string> fingerprint(const Context& ctx) {
  return {{"compiler", __VERSION__},
          {"cpu", cpu_model()},
          {"blas", gemm_library()},
          {"device", name(ctx.device)}};
}

}  // namespace sluice
