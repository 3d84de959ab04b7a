// tests/kernels/gdn_gpu_problem.h -- a GDN problem on the GPU: bf16 tensors of tokens, f32
// parameters and states.
#pragma once

#include "tests/kernels/gdn_problem.h"
#include "tests/kernels/kda_gpu_problem.h"

namespace sluice::test {

// The inputs of p become what the GPU reads, so that the reference has the same problem.
inline void round_inputs(const GdnProblem& p) {
  for (const auto& [name, t] : p.inputs())
    for (int64_t i = 0; i < t.numel(); ++i)
      set_element(t, i, is_token(name) ? from_bf16(to_bf16(element(t, i))) : float(element(t, i)));
}

struct GdnOnGpu {
  explicit GdnOnGpu(const GdnProblem& p)
      : problem(p),
        arena(Device::cuda, 512 << 20),
        cu(DType::i32, {p.shape.documents() + 1}, Device::cuda) {
    for (const auto& [name, t] : p.inputs()) all.try_emplace(name, t, is_token(name), &t);
    for (const auto& [name, t] : p.results()) all.try_emplace(name, t, is_token(name), nullptr);
    copy(p.cu.view(), cu.view());
    ctx = {.device = Device::cuda, .arena = &arena};
  }

  GdnForward forward_args() const {
    GdnForward a = problem.forward_args();
    a.q = at("q"), a.k = at("k"), a.v = at("v"), a.g = at("g");
    if (a.beta) a.beta = at("beta");
    a.A_log = at("A_log"), a.dt_bias = at("dt_bias"), a.cu_seqlens = cu.view(), a.o = at("o");
    if (a.initial_state) a.initial_state = at("initial_state");
    if (a.final_state) a.final_state = at("final_state");
    return a;
  }
  GdnBackward backward_args() const {
    GdnBackward a = problem.backward_args();
    a.q = at("q"), a.k = at("k"), a.v = at("v"), a.g = at("g");
    if (a.beta) a.beta = at("beta"), a.dbeta.t = at("dbeta");
    a.A_log = at("A_log"), a.dt_bias = at("dt_bias"), a.cu_seqlens = cu.view();
    a.d_o = at("d_o"), a.saved = saved.view();
    a.dq.t = at("dq"), a.dk.t = at("dk"), a.dv.t = at("dv"), a.dg.t = at("dg");
    a.dA_log.t = at("dA_log"), a.ddt_bias.t = at("ddt_bias");
    if (a.initial_state) a.initial_state = at("initial_state");
    if (a.dfinal_state) a.dfinal_state = at("dfinal_state");
    if (a.dinitial_state) a.dinitial_state.t = at("dinitial_state");
    return a;
  }
  void forward() {
    GdnForward a = forward_args();
    saved = Buffer(DType::u8, {gdn_saved_bytes(ctx, a)}, Device::cuda);
    SLUICE_CUDA(cudaMemset(saved.view().data, 0xff, size_t(saved.view().numel())));  // NaN
    SLUICE_CUDA(cudaMemset(arena.address(0), 0xff, size_t(arena.capacity())));
    a.saved = saved.view();
    gdn_forward(ctx, a);
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  void backward() {
    gdn_backward(ctx, backward_args());
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  const Tensor& at(const std::string& name) const { return all.at(name).t; }
  void download(const GdnProblem& to) const {
    for (const auto& [name, t] : to.results()) all.at(name).download(t);
  }

  const GdnProblem& problem;
  Arena arena;
  Context ctx;
  Buffer cu, saved;
  std::map<std::string, OnGpu> all;
};

}  // namespace sluice::test
