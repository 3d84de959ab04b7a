// tests/kernels/moe_grouped_linear_gpu_test.cpp -- the experts' products on CUDA.
//
// Bounds: as in rows_gpu_test.cpp; an output in bf16 is rounded once, a sum in f32 of n terms is
// good to sqrt(n) / 3 ulps of its size.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "kernels/moe/grouped_linear/grouped_linear.h"
#include "tests/kernels/moe_gpu_problem.h"

namespace sluice::test {
namespace {

constexpr double kRounded = .004, kSum = 1e-5;

// Of seven experts three have no row, one has one, one has most.
Buffer offsets_of(int64_t R) {
  Buffer b(DType::i32, {8});
  const int64_t at[] = {0, 0, R - R / 3, R - R / 5, R - R / 5, std::max(R - R / 5, R - 1), R, R};
  for (int e = 0; e < 8; ++e) b.view().as<int32_t>()[e] = int32_t(at[e]);
  return b;
}

GpuCase grouped_case(int64_t D, int64_t F) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {D}), p.row_input("dy", {F}), p.input("w", {7, F, D});
    p.row_output("y", {F}), p.row_output("dx", {D}), p.output("dw", {7, F, D});
    const auto offsets = std::make_shared<Integers>(offsets_of(setup.N));
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      grouped_linear_forward(
          ctx, {.x = t["x"], .w = t["w"], .offsets = offsets->on(ctx.device), .y = t["y"]});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      grouped_linear_backward(ctx, {.x = t["x"],
                                    .w = t["w"],
                                    .offsets = offsets->on(ctx.device),
                                    .dy = t["dy"],
                                    .dx = t.grad("dx"),
                                    .dw = t.grad("dw")});
    };
    return p;
  };
  return {
      .make = make, .wide = {"dw"}, .bounds = {{"y", kRounded}, {"dx", kRounded}, {"dw", kSum}}};
}

using GroupedLinearGpu = GpuTest;

// Dense rows of a multiple of 8 take the one path, the others the general one.
TEST_F(GroupedLinearGpu, AgreesWithReferenceInF64) {
  for (const auto& [D, F] :
       {std::pair<int64_t, int64_t>{64, 256}, {8, 16}, {200, 328}, {19, 131}, {1, 1}})
    for (int64_t N : {3, 290}) expect_gpu_near_reference(grouped_case(D, F), N);
  expect_gpu_near_reference(grouped_case(520, 136), 500);
}

TEST_F(GroupedLinearGpu, KeepsTheOpPromises) {
  expect_gpu_op_promises(grouped_case(136, 264));
  expect_gpu_op_promises(grouped_case(19, 35));
}

// Small integers: every product and sum is exact; many tiles for every CTA, unequal experts.
TEST_F(GroupedLinearGpu, IsExactInIntegers) {
  const GpuContext& gpu = GpuContext::shared();
  const int64_t N = 1500, D = 320, F = 264;
  const GpuCase c = grouped_case(D, F);
  OpProblem got = c.make({.N = N}), want = c.make({.dtype = DType::f32, .N = N});
  for (const char* name : {"x", "w", "dy"})
    for (int64_t i = 0; i < got[name].numel(); ++i)
      set_element(got[name], i, random_u64(9, uint64_t(i)) % 16 == 0 ? double(i * 7 % 3) - 1 : 0);
  copy_inputs(got, want);
  want.run(CpuContext(Mode::run, 4, 32 << 20));
  OnGpu on(got, c.make, {.N = N}, c.wide);
  on.problem().run(gpu);
  SLUICE_CUDA(cudaDeviceSynchronize());
  on.download();
  for (const char* name : {"y", "dx", "dw"})
    for (int64_t i = 0; i < got[name].numel(); ++i)
      ASSERT_EQ(element(got[name], i), element(want[name], i)) << name << " " << i;
}

}  // namespace
}  // namespace sluice::test
