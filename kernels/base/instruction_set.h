// kernels/base/instruction_set.h -- for which processors the kernels that run were compiled.
#pragma once

namespace sluice {

// avx512 | avx2 | baseline. Of a portable build: of the version that the dynamic loader chose.
const char* instruction_set();

}  // namespace sluice
