// tests/support/gpu_problem.h -- an OpProblem on the GPU, against the f64 reference fed what the
// GPU reads.
//
// Tensors are bf16 there, but for those named wide (f32) and integers. Rows of the strided layout
// are not aligned, those of the dense one are if the width is a multiple of 8.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "kernels/base/cuda_check.h"
#include "kernels/device/stream.h"
#include "kernels/gemm/cuda_gemm.h"
#include "kernels/mla/cudnn.h"
#include "tests/support/op_problem.h"

namespace sluice::test {

// A context with all that an op may ask for; shared(): its memory starts as NaN.
struct GpuContext {
  explicit GpuContext(int64_t arena_bytes = int64_t(256) << 20) : arena(Device::cuda, arena_bytes) {
    ctx.device = Device::cuda;
    ctx.arena = &arena;
    ctx.stream = stream.get();
    ctx.gemm = &gemm;
#ifdef SLUICE_CUDNN
    ctx.attention = &attention;
#endif
  }
  operator const Context&() const {
    return ctx;
  }
  // One for all tests of a program: making it takes longer than most of them.
  static GpuContext& shared() {
    static GpuContext gpu;
    gpu.arena.reset_peak();
    SLUICE_CUDA(cudaMemset(gpu.arena.address(0), 0xff, size_t(gpu.arena.capacity())));
    return gpu;
  }

  Stream stream;
  CudaGemm gemm;
#ifdef SLUICE_CUDNN
  CudnnAttention attention;
#endif
  Arena arena;
  Context ctx;
};

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
      GTEST_SKIP() << "NOT TESTED, no GPU: " << cudaGetErrorName(e) << ": "
                   << cudaGetErrorString(e);
  }
};

using Names = std::set<std::string>;

// The tensors of `host` on the GPU; what lies between rows is NaN there, and must stay so.
class OnGpu {
 public:
  OnGpu(const OpProblem& host, const MakeProblem& make, const Setup& setup, const Names& wide)
      : host_(host), problem_(make(setup)), wide_(wide) {
    for (const auto& [name, slot] : host.slots()) {
      const Tensor& m = slot.memory.view();
      const bool integers = m.dtype == DType::i32;
      const DType dtype = integers || m.dtype == DType::u8 ? m.dtype
                          : wide.count(name)               ? DType::f32
                                                           : DType::bf16;
      Tensor like = m;
      like.dtype = dtype;
      const Buffer narrow(like);
      copy_elements(m, narrow.view());
      like.device = Device::cuda;
      memory_.emplace(name, Buffer(like));
      copy(narrow.view(), memory_.at(name).view());
      Tensor t = slot.tensor;
      const auto offset = static_cast<const char*>(t.data) - static_cast<const char*>(m.data);
      t.data = static_cast<char*>(memory_.at(name).view().data) +
               offset / size_of(m.dtype) * size_of(dtype);
      t.dtype = dtype;
      t.device = Device::cuda;
      problem_.replace(name, t);
    }
  }
  OpProblem& problem() { return problem_; }

  // The outputs go into `host`'s tensors.
  void download() const {
    for (const auto& [name, slot] : host_.slots()) {
      if (!slot.output) continue;
      const Tensor& m = memory_.at(name).view();
      Tensor like = m;
      like.device = Device::cpu;
      const Buffer narrow(like);
      copy(m, narrow.view());
      copy_elements(narrow.view(), slot.memory.view());
    }
  }

 private:
  const OpProblem& host_;
  OpProblem problem_;
  Names wide_;
  std::map<std::string, Buffer> memory_;
};

inline bool is_gradient(const OpProblem& p, const std::string& name) {
  return name[0] == 'd' && p.has(name.substr(1)) && p.slots().at(name).output;
}

// bf16 inputs become what the GPU reads.
inline void round_inputs(const OpProblem& p, const Names& wide) {
  for (const auto& [name, slot] : p.slots())
    if (!slot.output && slot.tensor.dtype == DType::f32 && !wide.count(name))
      for (int64_t i = 0; i < slot.tensor.numel(); ++i)
        set_element(slot.tensor, i, from_bf16(to_bf16(element(slot.tensor, i))));
}

struct GpuCase {
  MakeProblem make;
  Names wide;  // f32 on the GPU
  // Of |got - want| over max(|want|, rms(want), least), by output.
  std::map<std::string, double> bounds;
  double least = 0;
  double rms = INFINITY;  // of ||got - want|| over ||want||, or least of each element: all outputs
};

// As compare(), which knows no `least`.
inline ErrorStats compare_gpu(const GpuCase& c, const Tensor& got, const Tensor& want,
                              double bound) {
  ErrorStats s;
  const int64_t n = want.numel();
  const double scale =
      std::max(c.least, std::sqrt(dot(want, want) / double(std::max<int64_t>(n, 1))));
  double errors = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double g = element(got, i), w = element(want, i), err = std::abs(g - w);
    const double ratio = err == 0 ? 0 : err / (bound * std::max(std::abs(w), scale));
    if (!(ratio <= s.worst)) s = {std::isfinite(err) ? ratio : INFINITY, i, g, w, 0};
    errors += err * err;
  }
  s.rms = std::sqrt(errors / std::max(scale * scale * double(n), 1e-300));
  return s;
}

// Written and added to, dense and strided: every output within its bound of the reference in f64.
inline void expect_gpu_near_reference(const GpuCase& c, int64_t N) {
  const GpuContext& gpu = GpuContext::shared();
  for (Layout layout : {Layout::dense, Layout::strided})
    for (double before : {double(NAN), 0.5}) {
      OpProblem got = c.make({.dtype = DType::f32, .N = N, .layout = layout});
      OpProblem want = c.make({.dtype = DType::f64, .N = N});
      round_inputs(got, c.wide);
      copy_inputs(got, want);
      const bool add = !std::isnan(before);
      if (add)
        for (const OpProblem* p : {&got, &want})
          for (const auto& [name, slot] : p->slots())
            if (is_gradient(*p, name)) fill(slot.tensor, before);
      OnGpu on(got, c.make, {.dtype = DType::f32, .N = N, .layout = layout}, c.wide);
      if (add) want.gradients_add(), on.problem().gradients_add();
      want.run(CpuContext(Mode::reference, 1, 32 << 20));
      on.problem().run(gpu);
      SLUICE_CUDA(cudaDeviceSynchronize());
      on.download();
      EXPECT_EQ(gpu.arena.used(), 0);
      for (const auto& [name, slot] : got.slots()) {
        if (!slot.output) continue;
        const auto bound = c.bounds.find(name);
        ASSERT_NE(bound, c.bounds.end()) << name;
        const ErrorStats e = compare_gpu(c, slot.tensor, want[name], bound->second);
        std::printf("  N %lld %s%s: %s rms error %.1e, worst %.2f of the bound\n",
                    static_cast<long long>(N), layout == Layout::dense ? "dense" : "strided",
                    add ? " added" : "", name.c_str(), e.rms, e.worst);
        EXPECT_LE(e.worst, 1) << name << ", N " << N << (add ? ", added: " : ": ") << e;
        EXPECT_LE(e.rms, c.rms) << name << ", N " << N << (add ? ", added: " : ": ") << e;
        if (!slot.rows || slot.tensor.rank < 2 || layout == Layout::dense) continue;
        const int64_t width = slot.memory.view().dim(1);
        for (int64_t n = 0; n < N && width * N != slot.tensor.numel(); ++n)
          for (int64_t at : {int64_t(0), int64_t(1), width - 3, width - 2, width - 1})
            ASSERT_TRUE(std::isnan(slot.memory.view().row<float>(n)[at])) << name << " " << n;
      }
    }
}

inline void expect_gpu_same_bits(const GpuCase& c, int64_t N) {
  const GpuContext& gpu = GpuContext::shared();
  OpProblem once = c.make({.N = N});
  round_inputs(once, c.wide);
  OnGpu on(once, c.make, {.N = N}, c.wide);
  on.problem().run(gpu);
  SLUICE_CUDA(cudaDeviceSynchronize());
  on.download();
  for (int i = 0; i < 3; ++i) {
    OpProblem again = c.make({.N = N});
    copy_inputs(once, again);
    OnGpu on_again(again, c.make, {.N = N}, c.wide);
    on_again.problem().run(gpu);
    SLUICE_CUDA(cudaDeviceSynchronize());
    on_again.download();
    expect_same_outputs(once, again, "again");
  }
}

// Parameter gradients of no rows are zeros, or stay.
inline void expect_gpu_no_rows(const GpuCase& c) {
  const GpuContext& gpu = GpuContext::shared();
  for (double before : {0.0, 100.0}) {
    OpProblem p = c.make({.N = 0});
    for (const auto& [name, slot] : p.slots())
      if (slot.output) fill(slot.tensor, before == 0 ? double(NAN) : before);
    OnGpu on(p, c.make, {.N = 0}, c.wide);
    if (before != 0) on.problem().gradients_add();
    on.problem().run(gpu);
    SLUICE_CUDA(cudaDeviceSynchronize());
    on.download();
    for (const auto& [name, slot] : p.slots())
      for (int64_t i = 0; is_gradient(p, name) && i < slot.tensor.numel(); ++i)
        ASSERT_EQ(element(slot.tensor, i), before) << name << " " << i;
  }
}

// The plan, made without touching the device, is what a run takes.
inline void expect_gpu_plan_is_run(const GpuCase& c, int64_t N) {
  const GpuContext& gpu = GpuContext::shared();
  OpProblem p = c.make({.N = N});
  OnGpu on(p, c.make, {.N = N}, c.wide);
  on.problem().run(gpu);
  SLUICE_CUDA(cudaDeviceSynchronize());
  Arena arena = Arena::plan(Device::cuda);
  on.problem().plan_only();
  on.problem().run({.device = Device::cuda, .mode = Mode::plan, .arena = &arena});
  EXPECT_EQ(arena.peak(), gpu.arena.peak());
}

inline void expect_gpu_op_promises(const GpuCase& c) {
  expect_gpu_no_rows(c);
  for (int64_t N : {1, 700}) expect_gpu_same_bits(c, N);
  for (int64_t N : {0, 300}) expect_gpu_plan_is_run(c, N);
}

}  // namespace sluice::test
