// kernels/short_conv/cuda_states.cuh -- the states of generation: cuda_states.cu.
#pragma once

#include "kernels/device/vec.cuh"
#include "kernels/short_conv/short_conv.h"

namespace sluice::cuda::short_conv_gpu {

// All of forward, for documents of one token and less as a rule.
void walk(const Context& ctx, const ShortConvForward& a);
// What states have to do with, after a forward pass that knew of none: the first W-1 tokens of each
// document, and its final state.
void walk_ends(const Context& ctx, const ShortConvForward& a);

}  // namespace sluice::cuda::short_conv_gpu
