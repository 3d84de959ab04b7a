// kernels/base/instruction_set.cpp -- compiled with the flags of the other kernels.
#include "kernels/base/instruction_set.h"

namespace sluice {

const char* instruction_set() {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "baseline";
#endif
}

}  // namespace sluice
