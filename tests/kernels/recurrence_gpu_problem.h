// tests/kernels/recurrence_gpu_problem.h -- a problem of KDA or GDN on the GPU: bf16 tensors of
// tokens, f32 parameters and states.
#pragma once

#include <cuda_runtime_api.h>

#include <map>

#include "kernels/base/cuda_check.h"
#include "tests/kernels/recurrence_problem.h"

namespace sluice::test {

// A tensor on the GPU. Rows of token tensors (bf16) lie kPad elements further apart than they need;
// what lies between is NaN and must stay so.
struct OnGpu {
  static constexpr int64_t kPad = 8;

  // `values` null: all NaN.
  OnGpu(const Tensor& like, bool token, const Tensor* values) : token(token) {
    const int64_t N = like.dim(0), width = N ? like.numel() / N : 0, pad = token ? kPad : 0;
    const Buffer wide(token ? DType::bf16 : DType::f32, {N, width + pad});
    if (token)
      std::fill_n(static_cast<uint16_t*>(wide.view().data), N * (width + pad), uint16_t(0xffff));
    else
      fill(wide.view(), NAN);
    for (int64_t i = 0; values && i < like.numel(); ++i) {
      const int64_t at = i / width * (width + pad) + i % width;
      if (token)
        static_cast<uint16_t*>(wide.view().data)[at] = to_bf16(element(*values, i));
      else
        wide.view().as<float>()[at] = float(element(*values, i));
    }
    memory = Buffer(wide.view().dtype, {N, width + pad}, Device::cuda);
    copy(wide.view(), memory.view());
    t = like;
    t.data = memory.view().data;
    t.dtype = memory.view().dtype;
    t.device = Device::cuda;
    t.stride[0] = like.rank == 1 ? 1 : width + pad;
  }

  void download(const Tensor& to) const {
    const Tensor& m = memory.view();
    const Buffer wide(m.dtype, {m.dim(0), m.dim(1)});
    copy(m, wide.view());
    const int64_t pad = token ? kPad : 0, width = m.dim(1) - pad;
    for (int64_t e = 0; e < m.numel(); ++e) {
      const double x = token ? from_bf16(static_cast<const uint16_t*>(wide.view().data)[e])
                             : double(wide.view().as<float>()[e]);
      if (e % m.dim(1) < width)
        set_element(to, e / m.dim(1) * width + e % m.dim(1), x);
      else
        ASSERT_TRUE(std::isnan(x)) << "written between rows, element " << e;
    }
  }

  bool token;
  Buffer memory;
  Tensor t;
};

inline bool is_token(const std::string& name) {
  return name == "q" || name == "k" || name == "v" || name == "g" || name == "beta" ||
         name == "d_o" || name == "o" || name == "dq" || name == "dk" || name == "dv" ||
         name == "dg" || name == "dbeta";
}

// The inputs of p become what the GPU reads, so that the reference has the same problem.
template <class Op>
void round_inputs(const RecurrenceProblem<Op>& p) {
  for (const auto& [name, t] : p.inputs())
    for (int64_t i = 0; i < t.numel(); ++i)
      set_element(t, i, is_token(name) ? from_bf16(to_bf16(element(t, i))) : float(element(t, i)));
}

template <class Op>
struct RecurrenceOnGpu {
  explicit RecurrenceOnGpu(const RecurrenceProblem<Op>& p)
      : problem(p),
        arena(Device::cuda, 512 << 20),
        cu(DType::i32, {p.shape.documents() + 1}, Device::cuda) {
    for (const auto& [name, t] : p.inputs()) all.try_emplace(name, t, is_token(name), &t);
    for (const auto& [name, t] : p.results()) all.try_emplace(name, t, is_token(name), nullptr);
    copy(p.cu.view(), cu.view());
    ctx = {.device = Device::cuda, .arena = &arena};
  }

  typename Op::Forward forward_args() const {
    typename Op::Forward a = problem.forward_args();
    a.q = at("q"), a.k = at("k"), a.v = at("v"), a.g = at("g");
    if (a.beta) a.beta = at("beta");
    a.A_log = at("A_log"), a.dt_bias = at("dt_bias"), a.cu_seqlens = cu.view(), a.o = at("o");
    if (a.initial_state) a.initial_state = at("initial_state");
    if (a.final_state) a.final_state = at("final_state");
    return a;
  }
  typename Op::Backward backward_args() const {
    typename Op::Backward a = problem.backward_args();
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
    typename Op::Forward a = forward_args();
    saved = Buffer(DType::u8, {Op::saved_bytes(ctx, a)}, Device::cuda);
    SLUICE_CUDA(cudaMemset(saved.view().data, 0xff, size_t(saved.view().numel())));  // NaN
    SLUICE_CUDA(cudaMemset(arena.address(0), 0xff, size_t(arena.capacity())));
    a.saved = saved.view();
    Op::forward(ctx, a);
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  void backward() {
    Op::backward(ctx, backward_args());
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  const Tensor& at(const std::string& name) const { return all.at(name).t; }
  void download(const RecurrenceProblem<Op>& to) const {
    for (const auto& [name, t] : to.results()) all.at(name).download(t);
  }

  const RecurrenceProblem<Op>& problem;
  Arena arena;
  Context ctx;
  Buffer cu, saved;
  std::map<std::string, OnGpu> all;
};

}  // namespace sluice::test
