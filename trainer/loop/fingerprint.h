// trainer/loop/fingerprint.h -- what must be equal for a resumed run to give the same bits.
#pragma once

#include <map>
#include <string>

#include "kernels/tensor/context.h"
#include "trainer/parallel/mesh.h"

namespace sluice {

// The program (its build id: every other build is another program, although its arithmetic may be
// the same), compiler, flags, instruction set, CPU model, BLAS with the kernel that it chose, libm,
// device, mesh. Data, seeds and micro-batch are in the config, which a checkpoint holds as well.
std::map<std::string, std::string> fingerprint(const Context& ctx, const MeshShape& mesh = {});

}  // namespace sluice
