// kernels/base/profile_range.cpp -- NVTX's headers are all of the library.
#include "kernels/base/profile_range.h"

#ifdef SLUICE_CUDA_BUILD
#include <nvtx3/nvToolsExt.h>

namespace sluice {

ProfileRange::ProfileRange(const char* name) {
  nvtxRangePushA(name);
}
ProfileRange::~ProfileRange() {
  nvtxRangePop();
}

}  // namespace sluice
#endif
