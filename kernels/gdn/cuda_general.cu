// kernels/gdn/cuda_general.cu -- head dims that the tensor cores' kernels are not made for.
#include "kernels/chunks/cuda_general.cuh"
#include "kernels/gdn/cuda_general.h"

namespace sluice::cuda::gdn_gpu {

static chunks::GeneralSizes sizes(const gdn::Sizes& s) {
  SLUICE_CHECK(s.K % 8 == 0 && s.K <= chunks::kGeneralMaxDim && s.V % 8 == 0 &&
                   s.V <= chunks::kGeneralMaxDim,
               "K is ", s.K, ", V ", s.V, ", expected multiples of 8 up to ",
               chunks::kGeneralMaxDim);
  return {s.N, s.documents, s.H, s.HV, s.K, s.V, 1};
}

template <class Args>
static chunks::General problem(const Args& a, const gdn::Sizes& s) {
  return {.size = sizes(s),
          .gate = {a.A_log.template as<float>(), a.dt_bias.template as<float>(), 0,
                   float(a.params.beta_max), 0, a.params.delta_rule},
          .q = rows_of(a.q),
          .k = rows_of(a.k),
          .v = rows_of(a.v),
          .z = rows_of(a.g),
          .beta = a.beta ? rows_of(a.beta) : Rows{},
          .cu_seqlens = a.cu_seqlens,
          .eps = float(kGdnNormEps)};
}

int64_t general_workspace_bytes(const gdn::Sizes& s, bool keeps) {
  return chunks::general_bytes(sizes(s), keeps);
}
int64_t general_backward_bytes(const gdn::Sizes& s) {
  return chunks::general_backward_bytes(sizes(s));
}

void general_forward(const Context& ctx, const GdnForward& a, const gdn::Sizes& s,
                     const Tensor& workspace) {
  chunks::general_forward(
      ctx,
      {problem(a, s), rows_of(a.o), a.initial_state ? a.initial_state.as<float>() : nullptr,
       a.final_state ? a.final_state.as<float>() : nullptr},
      workspace.data, bool(a.saved));
}

void general_backward(const Context& ctx, const GdnBackward& a, const gdn::Sizes& s,
                      const Tensor& memory) {
  chunks::general_backward(
      ctx,
      {problem(a, s), rows_of(a.d_o), rows_of(a.dq.t), rows_of(a.dk.t), rows_of(a.dv.t),
       rows_of(a.dg.t), a.dbeta.t ? rows_of(a.dbeta.t) : Rows{}, a.dq.add, a.dk.add, a.dv.add,
       a.dg.add, a.dbeta.add, a.dfinal_state ? a.dfinal_state.as<float>() : nullptr,
       a.dinitial_state ? a.dinitial_state.t.as<float>() : nullptr, a.dinitial_state.add, a.dA_log,
       a.ddt_bias},
      a.saved.data, memory.data);
}

}  // namespace sluice::cuda::gdn_gpu
