// launch/version.cpp -- what was built: a support question's first answer.
#include <fmt/format.h>

#include "kernels/base/instruction_set.h"
#include "kernels/gemm/gemm.h"
#include "launch/commands.h"

#ifdef SLUICE_CUDA_BUILD
#include <cuda_runtime_api.h>
#endif

namespace sluice::launch {

static std::string cuda_state() {
#ifdef SLUICE_CUDA_BUILD
  int devices = 0;
  const cudaError_t e = cudaGetDeviceCount(&devices);
  return fmt::format("built with CUDA {}.{} for sm_90a; {}", CUDART_VERSION / 1000,
                     CUDART_VERSION % 1000 / 10,
                     e == cudaSuccess ? fmt::format("{} GPU(s) visible", devices)
                                      : std::string("no GPU visible: ") + cudaGetErrorString(e));
#else
  return "built without CUDA";
#endif
}

std::string version() {
#if defined(__clang__)
  const std::string compiler = fmt::format("clang {}.{}", __clang_major__, __clang_minor__);
#else
  const std::string compiler = fmt::format("g++ {}.{}", __GNUC__, __GNUC_MINOR__);
#endif
  const std::string sanitizers = SLUICE_SANITIZERS;
  return fmt::format("sluice {}\n{}, {}, -march={}, kernels {}{}\n{}\nGEMM on the CPU: {}\n",
                     SLUICE_REVISION, compiler, SLUICE_BUILD_TYPE, SLUICE_MARCH_NAME,
                     instruction_set(),
                     sanitizers.empty() ? std::string() : ", sanitizers " + sanitizers,
                     cuda_state(), gemm_library());
}

}  // namespace sluice::launch
