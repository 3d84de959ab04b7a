// model/autograd/layer_probe.h -- what a forward pass tells about each layer, for people to look
// at.
//
// A tape that was told to probe_into() one measures its recurrences. The figures are made on the
// host in f64, from at most kProbedRows rows: for once in a while, not for every step.
#pragma once

#include <limits>
#include <vector>

#include "kernels/kda/kda.h"
#include "model/autograd/param_store.h"

namespace sluice {

constexpr int64_t kProbedRows = 256;  // spread evenly over the micro-batch

// Dims: N tokens, HV value heads, C channels that have a gate of their own: K of KDA, 1 of GDN and
// Mamba2; S documents.
struct ProbedRecurrence {
  Tensor g;             // [N, HV*C] gate logits
  Tensor A_log;         // [HV]
  Tensor dt_bias;       // [HV, C], or [HV] for C = 1
  Tensor beta;          // [N, HV] logits; optional
  KdaParams law;        // of gate and beta
  Tensor final_states;  // [S, HV, K, V]
  Tensor cu_seqlens;    // [S + 1] i32
};

class LayerProbe {
 public:
  struct Recurrence {
    int group = -1;  // the layer: ParamStore::group_name()
    // Tokens after which half of the state is left: ln 2 / mean of -g, infinity if g is 0. Of all
    // channels of all heads 10, 50 and 90 in 100 have at most that.
    double half_life_p10 = 0, half_life_p50 = 0, half_life_p90 = 0;
    double beta_mean = std::numeric_limits<double>::quiet_NaN();  // NaN: it has no beta
    double state_rms = 0;  // of the final states of documents with tokens
  };

  void measure(int group, const ProbedRecurrence& r);  // when the forward is done: it waits for it
  const std::vector<Recurrence>& recurrences() const { return recurrences_; }

 private:
  std::vector<Recurrence> recurrences_;
};

}  // namespace sluice
