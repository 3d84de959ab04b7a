// tests/kernels/linear_gpu_test.cpp -- linear and the fused loss on CUDA: cuBLASLt and what is
// around it.
#include <gtest/gtest.h>

#include <memory>

#include "kernels/linear/linear.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

GpuCase linear_case(int64_t D, int64_t F) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {D}), p.row_input("dy", {F}), p.input("w", {F, D});
    p.row_output("y", {F}), p.row_output("dx", {D}), p.output("dw", {F, D});
    p.forward = [](const Context& ctx, const OpProblem& t) {
      linear_forward(ctx, {.x = t["x"], .w = t["w"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const OpProblem& t) {
      linear_backward(
          ctx, {.x = t["x"], .w = t["w"], .dy = t["dy"], .dx = t.grad("dx"), .dw = t.grad("dw")});
    };
    return p;
  };
  // Products of bf16 are exact in f32. y and dx are rounded once, an added dx twice: cuBLASLt
  // rounds the product before it adds. dw is a sum in f32 of N terms, wandering by sqrt(N) / 3 ulps
  // of its size.
  return {.make = make, .wide = {"dw"}, .bounds = {{"y", .004}, {"dx", .008}, {"dw", 1e-5}}};
}

// f64 scalars, and targets of which every third is not valid, where the op runs.
struct LossInputs {
  explicit LossInputs(int64_t N, int64_t V) : targets(DType::i32, {N}) {
    for (int64_t n = 0; n < N; ++n)
      targets.view().as<int32_t>()[n] =
          n % 3 == 2 ? kIgnoreIndex : int32_t(random_u64(5, uint64_t(n)) % uint64_t(V));
  }
  struct On {
    Buffer scale, dloss, loss, terms, targets, predicted;
  };
  const On& on(Device d) {
    On& o = d == Device::cpu ? cpu : cuda;
    if (o.scale.view()) return o;
    const auto scalar = [d](double value) {
      const Buffer host(DType::f64, {1});
      *host.view().as<double>() = value;
      Buffer b(DType::f64, {1}, d);
      copy(host.view(), b.view());
      return b;
    };
    const int64_t N = targets.view().dim(0);
    o.scale = scalar(0.125), o.dloss = scalar(2), o.loss = scalar(NAN);
    o.terms = Buffer(DType::f64, {2}, d), o.targets = Buffer(DType::i32, {N}, d);
    o.predicted = Buffer(DType::i32, {N}, d);
    copy(targets.view(), o.targets.view());
    return o;
  }
  Buffer targets;
  On cpu, cuda;
};

enum class Gradients : uint8_t { in_backward, in_forward };
GpuCase loss_case(int64_t D, int64_t V, double z_loss, std::shared_ptr<LossInputs> in,
                  Gradients gradients = Gradients::in_backward) {
  const bool at_once = gradients == Gradients::in_forward;
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("h", {D}), p.input("w", {V, D});
    p.row_output("lse", {}), p.row_output("nll", {}), p.row_output("dh", {D});
    p.output("dw", {V, D});
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      const auto& s = in->on(ctx.device);
      linear_cross_entropy_forward(ctx, {.h = t["h"],
                                         .w = t["w"],
                                         .targets = s.targets.view(),
                                         .loss_scale = s.scale.view(),
                                         .loss = s.loss.view(),
                                         .terms = s.terms.view(),
                                         .lse = t["lse"],
                                         .nll = t["nll"],
                                         .predicted = s.predicted.view(),
                                         .z_loss = z_loss,
                                         .dh = at_once ? t["dh"] : Tensor{},
                                         .dw = at_once ? t.grad("dw") : Grad{}});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      const auto& s = in->on(ctx.device);
      if (at_once) return;
      linear_cross_entropy_backward(ctx, {.h = t["h"],
                                          .w = t["w"],
                                          .targets = s.targets.view(),
                                          .loss_scale = s.scale.view(),
                                          .lse = t["lse"],
                                          .dloss = s.dloss.view(),
                                          .dh = t.grad("dh"),
                                          .dw = t.grad("dw"),
                                          .z_loss = z_loss});
    };
    return p;
  };
  // Logits are f32 sums of exact products, of size sqrt(D). Their gradients are rounded to bf16:
  // the largest, a target's, by up to 2^-9 of 2 * 0.125, times a factor of up to 4 in h or w, where
  // all of dw has an rms of 0.15.
  return {.make = make,
          .wide = {"lse", "nll", "dw"},
          .bounds = {{"lse", 1e-4}, {"nll", 1e-4}, {"dh", .02}, {"dw", .03}}};
}

using LinearGpu = GpuTest;

TEST_F(LinearGpu, AgreesWithReferenceInF64) {
  for (const auto& [D, F] :
       {std::pair<int64_t, int64_t>{1, 1}, {5, 130}, {192, 8}, {256, 512}, {67, 300}})
    for (int64_t N : {1, 3, 300}) expect_gpu_near_reference(linear_case(D, F), N);
}

TEST_F(LinearGpu, KeepsTheOpPromises) {
  expect_gpu_op_promises(linear_case(256, 512));
  expect_gpu_op_promises(linear_case(67, 130));
}

// Small integers: every product and sum is exact in bf16's 8 bits or f32's 24.
TEST_F(LinearGpu, ExactInIntegers) {
  const GpuContext& gpu = GpuContext::shared();
  const int64_t N = 64, D = 16, F = 24;
  const GpuCase c = linear_case(D, F);
  OpProblem got = c.make({.N = N}), want = c.make({.dtype = DType::f64, .N = N});
  for (const char* name : {"x", "w", "dy"})
    for (int64_t i = 0; i < got[name].numel(); ++i)
      set_element(got[name], i, double(i * 7 % 5) - 2);
  copy_inputs(got, want);
  want.run(CpuContext(Mode::reference));
  OnGpu on(got, c.make, {.N = N}, c.wide);
  on.problem().run(gpu);
  SLUICE_CUDA(cudaDeviceSynchronize());
  on.download();
  for (const char* name : {"y", "dx", "dw"})
    for (int64_t i = 0; i < got[name].numel(); ++i)
      ASSERT_EQ(element(got[name], i), element(want[name], i)) << name << " " << i;
}

using LossGpu = GpuTest;

TEST_F(LossGpu, AgreesWithReferenceInF64) {
  for (const auto& [D, V] : {std::pair<int64_t, int64_t>{64, 200}, {8, 3}, {33, 401}, {5, 1}})
    for (int64_t N : {1, 300, 2100})
      for (double z_loss : {0.0, 0.01}) {
        if (N == 2100 && z_loss == 0) continue;
        if (N != 300)  // one token, and more than a block of rows
          expect_gpu_near_reference(
              loss_case(D, V, z_loss, std::make_shared<LossInputs>(N, V), Gradients::in_forward),
              N);
        const auto in = std::make_shared<LossInputs>(N, V);
        const GpuCase c = loss_case(D, V, z_loss, in);
        expect_gpu_near_reference(c, N);
        // The scalars of the last run.
        double got[3], want[3];
        const auto take = [](const LossInputs::On& o, double* to) {
          copy(o.loss.view(), make_tensor(to, DType::f64, Device::cpu, {1}));
          copy(o.terms.view(), make_tensor(to + 1, DType::f64, Device::cpu, {2}));
        };
        take(in->on(Device::cuda), got), take(in->on(Device::cpu), want);
        for (int i = 0; i < 3; ++i)
          EXPECT_NEAR(got[i], want[i], 1e-5 * std::max(1.0, std::abs(want[0]))) << i << " N " << N;
        const Buffer predicted(DType::i32, {N});
        copy(in->on(Device::cuda).predicted.view(), predicted.view());
        int64_t other = 0;  // two logits may be as close as f32's rounding
        for (int64_t n = 0; n < N; ++n)
          other += predicted.view().as<int32_t>()[n] !=
                   in->on(Device::cpu).predicted.view().as<int32_t>()[n];
        EXPECT_LE(other, N / 200) << "V " << V;
      }
}

TEST_F(LossGpu, KeepsTheOpPromises) {
  for (int64_t N : {1, 700, 2500})
    expect_gpu_same_bits(loss_case(64, 1000, 0.01, std::make_shared<LossInputs>(N, 1000)), N);
  for (int64_t N : {0, 300})
    expect_gpu_plan_is_run(loss_case(64, 1000, 0, std::make_shared<LossInputs>(N, 1000)), N);
  expect_gpu_no_rows(loss_case(64, 1000, 0, std::make_shared<LossInputs>(0, 1000)));
}

// Equal logits: the lowest id.
TEST_F(LossGpu, PredictsTheLowestOfEquals) {
  const int64_t N = 40, V = 3000, D = 8;
  const auto in = std::make_shared<LossInputs>(N, V);
  const GpuContext& gpu = GpuContext::shared();
  const GpuCase c = loss_case(D, V, 0, in);
  OpProblem p = c.make({.N = N});
  fill(p["w"], 0);
  for (const int64_t v : {70, 1500, 2999})
    for (int64_t d = 0; d < D; ++d) set_element(p["w"], v * D + d, 1);
  fill(p["h"], 1);
  OnGpu on(p, c.make, {.N = N}, c.wide);
  on.problem().forward(gpu, on.problem());
  const Buffer predicted(DType::i32, {N});
  copy(in->on(Device::cuda).predicted.view(), predicted.view());
  for (int64_t n = 0; n < N; ++n) EXPECT_EQ(predicted.view().as<int32_t>()[n], 70) << n;
}

}  // namespace
}  // namespace sluice::test
