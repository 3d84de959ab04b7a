// tests/kernels/recurrence_gpu_problem.h -- a problem of KDA or GDN on the GPU: bf16 tensors of
// tokens, f32 parameters and states.
#pragma once

#include <cuda_runtime_api.h>

#include <map>

#include "kernels/base/cuda_check.h"
#include "tests/kernels/recurrence_problem.h"

namespace sluice::test {

// A tensor on the GPU. Rows of token tensors (bf16) lie kPad elements further apart than they need,
// and kGuard rows lie before the first and after the last; what is no row's is NaN and must stay
// so.
struct OnGpu {
  static constexpr int64_t kPad = 8, kGuard = 16;

  // `values` null: all NaN.
  OnGpu(const Tensor& like, bool token, const Tensor* values)
      : token(token),
        input(values != nullptr),
        rows(like.dim(0)),
        width(row_elements(like)),
        pitch(width + (token ? kPad : 0)),
        host(token ? DType::bf16 : DType::f32, {rows + 2 * kGuard, pitch}) {
    if (token)
      std::fill_n(static_cast<uint16_t*>(host.view().data), host.view().numel(), uint16_t(0xffff));
    else
      fill(host.view(), NAN);
    for (int64_t i = 0; values && i < like.numel(); ++i) {
      if (token)
        static_cast<uint16_t*>(host.view().data)[at(i)] = to_bf16(element(*values, i));
      else
        host.view().as<float>()[at(i)] = float(element(*values, i));
    }
    memory = Buffer(host.view().dtype, {rows + 2 * kGuard, pitch}, Device::cuda);
    copy(host.view(), memory.view());
    t = like;
    t.data = memory.view().rows(kGuard, rows).data;
    t.dtype = memory.view().dtype;
    t.device = Device::cuda;
    t.stride[0] = like.rank == 1 ? 1 : pitch;
  }

  static int64_t row_elements(const Tensor& t) {
    int64_t n = 1;
    for (int d = 1; d < t.rank; ++d) n *= t.dim(d);
    return n;
  }
  // Element i of the tensor in memory.
  int64_t at(int64_t i) const { return (kGuard + i / width) * pitch + i % width; }

  // To the host; inputs and what is no row's must be as they were.
  void download(const Tensor& to) const {
    const Buffer now(host.view());
    copy(memory.view(), now.view());
    for (int64_t e = 0; e < now.view().numel(); ++e) {
      const double x = token ? from_bf16(static_cast<const uint16_t*>(now.view().data)[e])
                             : double(now.view().as<float>()[e]);
      const int64_t row = e / pitch - kGuard, column = e % pitch;
      if (row >= 0 && row < rows && column < width)
        set_element(to, row * width + column, x);
      else
        ASSERT_TRUE(std::isnan(x)) << "written outside the rows, element " << e;
    }
    ASSERT_TRUE(!input || same_bits(now.view(), host.view())) << "an input was written";
  }

  bool token, input;
  int64_t rows, width, pitch;
  Buffer host;  // as it was at first
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
    SLUICE_CUDA(cudaMemset(arena.address(0), kPoison, size_t(arena.capacity())));
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
    a.d_o = at("d_o"), a.saved = saved_bytes();
    a.dq.t = at("dq"), a.dk.t = at("dk"), a.dv.t = at("dv"), a.dg.t = at("dg");
    a.dA_log.t = at("dA_log"), a.ddt_bias.t = at("ddt_bias");
    if (a.initial_state) a.initial_state = at("initial_state");
    if (a.dfinal_state) a.dfinal_state = at("dfinal_state");
    if (a.dinitial_state) a.dinitial_state.t = at("dinitial_state");
    return a;
  }
  // What forward keeps, kBytesAround of poison on either side.
  Tensor saved_bytes() const {
    return saved.view().rows(kBytesAround, saved.view().numel() - 2 * kBytesAround);
  }
  void queue_forward(const Context& on) const {
    typename Op::Forward a = forward_args();
    a.saved = saved_bytes();
    Op::forward(on, a);
  }
  void forward() {
    const int64_t bytes = Op::saved_bytes(ctx, forward_args());
    saved = Buffer(DType::u8, {bytes + 2 * kBytesAround}, Device::cuda);
    SLUICE_CUDA(cudaMemset(saved.view().data, kPoison, size_t(saved.view().numel())));
    SLUICE_CUDA(cudaMemset(arena.address(0), kPoison, size_t(arena.capacity())));
    queue_forward(ctx);
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  void backward() {
    Op::backward(ctx, backward_args());
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  void poison_results() const {
    for (const auto& [name, t] : problem.results()) {
      const Tensor& m = all.at(name).memory.view();
      SLUICE_CUDA(cudaMemset(m.data, kPoison, size_t(m.numel() * size_of(m.dtype))));
    }
  }
  const Tensor& at(const std::string& name) const { return all.at(name).t; }
  // Results to the host. Scratch must have stayed inside what was planned, inputs as they were.
  void download(const RecurrenceProblem<Op>& to) const {
    for (const auto& [name, t] : to.results()) all.at(name).download(t);
    for (const auto& [name, t] : to.inputs()) all.at(name).download(Buffer(t).view());
    expect_poison(make_tensor(arena.address(arena.peak()), DType::u8, Device::cuda,
                              {std::min(kBytesAround, arena.capacity() - arena.peak())}),
                  "after scratch");
    if (!saved.view()) return;
    expect_poison(saved.view().rows(0, kBytesAround), "before what is saved");
    expect_poison(saved.view().rows(saved.view().numel() - kBytesAround, kBytesAround),
                  "after what is saved");
  }
  static void expect_poison(const Tensor& bytes, const char* where) {
    const Buffer host(DType::u8, {bytes.numel()});
    copy(bytes, host.view());
    const auto* p = static_cast<const uint8_t*>(host.view().data);
    EXPECT_TRUE(std::all_of(p, p + bytes.numel(), [](uint8_t x) { return x == kPoison; })) << where;
  }

  static constexpr uint8_t kPoison = 0xff;  // of bf16 and f32: NaN
  static constexpr int64_t kBytesAround = 1 << 16;

  const RecurrenceProblem<Op>& problem;
  Arena arena;
  Context ctx;
  Buffer cu, saved;
  std::map<std::string, OnGpu> all;
};

}  // namespace sluice::test
