// trainer/gradcheck/gradcheck.h -- are the gradients right? f64 finite differences against
// backward.
//
// For a random direction u: <dL/dx, u> against five-point central differences of L(x + h u), which
// in f64 with h = 2e-5 are good to about 1e-9; 1e-6 is the bar.
#pragma once

#include <string>
#include <vector>

#include "kernels/tensor/context.h"
#include "model/autograd/tape.h"
#include "model/lm/config.h"

namespace sluice {

struct GradcheckRow {
  std::string name;  // "kda softplus: dt_bias", "layers.0.kda.qkv_proj"
  double error = 0;  // worst relative disagreement of its directions
};

// Every op of model/autograd with its inputs and parameters, packed documents, zero-length ones
// included, in the context's mode (run: the fast path; reference: the plain loops). CPU.
std::vector<GradcheckRow> gradcheck_ops(const Context& ctx, uint64_t seed);

// The loss of a whole model with respect to each of its parameters, one row a parameter.
std::vector<GradcheckRow> gradcheck_model(const Context& ctx, const LmConfig& config,
                                          Recompute recompute, uint64_t seed);

// A model small enough to check in seconds with every layer kind in it.
LmConfig gradcheck_config();
// The same with q-LoRA, MLA's output gate, KDA's full-rank gate and no convolution.
LmConfig gradcheck_variant_config();
// The same with GDN and Mamba2 in KDA's place.
LmConfig gradcheck_gdn_config();

// The same with a mixture of experts behind the first layer, one expert of which is idle. The
// choices of experts are those of the unperturbed run throughout.
LmConfig gradcheck_moe_config();

std::string to_string(const std::vector<GradcheckRow>& rows);  // a table
double worst(const std::vector<GradcheckRow>& rows);           // NaN counts as infinite

}  // namespace sluice
