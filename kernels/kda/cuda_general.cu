// kernels/kda/cuda_general.cu -- head dims that the tensor cores' kernels are not made for.
#include "kernels/chunks/cuda_general.cuh"
#include "kernels/kda/cuda_general.h"

namespace sluice::cuda::kda_gpu {

static chunks::GeneralSizes sizes(const kda::Sizes& s) {
  SLUICE_CHECK(s.K % 8 == 0 && s.K <= chunks::kGeneralMaxDim && s.V % 8 == 0 &&
                   s.V <= chunks::kGeneralMaxDim,
               "K is ", s.K, ", V ", s.V, ", expected multiples of 8 up to ",
               chunks::kGeneralMaxDim);
  return {s.N, s.documents, s.H, s.HV, s.K, s.V, s.K};
}

template <class Args>
static chunks::General problem(const Args& a, const kda::Sizes& s) {
  return {.size = sizes(s),
          .gate = {a.A_log.template as<float>(), a.dt_bias.template as<float>(),
                   float(a.params.gate_lower_bound), float(a.params.beta_max),
                   a.params.gate == GateLaw::bounded, 1},
          .q = rows_of(a.q),
          .k = rows_of(a.k),
          .v = rows_of(a.v),
          .z = rows_of(a.g),
          .beta = rows_of(a.beta),
          .cu_seqlens = a.cu_seqlens,
          .eps = float(kKdaNormEps)};
}

int64_t general_workspace_bytes(const kda::Sizes& s, bool keeps) {
  return chunks::general_bytes(sizes(s), keeps);
}
int64_t general_backward_bytes(const kda::Sizes& s) {
  return chunks::general_backward_bytes(sizes(s));
}

void general_forward(const Context& ctx, const KdaForward& a, const kda::Sizes& s,
                     const Tensor& workspace) {
  chunks::general_forward(
      ctx,
      {problem(a, s), rows_of(a.o), a.initial_state ? a.initial_state.as<float>() : nullptr,
       a.final_state ? a.final_state.as<float>() : nullptr},
      workspace.data, bool(a.saved));
}

void general_backward(const Context& ctx, const KdaBackward& a, const kda::Sizes& s,
                      const Tensor& memory) {
  chunks::general_backward(
      ctx,
      {problem(a, s), rows_of(a.d_o), rows_of(a.dq.t), rows_of(a.dk.t), rows_of(a.dv.t),
       rows_of(a.dg.t), rows_of(a.dbeta.t), a.dq.add, a.dk.add, a.dv.add, a.dg.add, a.dbeta.add,
       a.dfinal_state ? a.dfinal_state.as<float>() : nullptr,
       a.dinitial_state ? a.dinitial_state.t.as<float>() : nullptr, a.dinitial_state.add, a.dA_log,
       a.ddt_bias},
      a.saved.data, memory.data);
}

}  // namespace sluice::cuda::kda_gpu
