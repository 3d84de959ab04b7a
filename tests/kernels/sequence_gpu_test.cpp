// tests/kernels/sequence_gpu_test.cpp -- embedding and short_conv on CUDA.
#include <gtest/gtest.h>

#include <memory>

#include "kernels/embedding/embedding.h"
#include "kernels/short_conv/short_conv.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

GpuCase embedding_case(int64_t V, int64_t D) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.tokens("tokens", V);
    p.input("table", {V, D}), p.row_input("dy", {D});
    p.row_output("y", {D}), p.output("dtable", {V, D});
    p.forward = [](const Context& ctx, const OpProblem& t) {
      embedding_forward(ctx, {.tokens = t["tokens"], .table = t["table"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const OpProblem& t) {
      embedding_backward(ctx, {.tokens = t["tokens"], .dy = t["dy"], .dtable = t.grad("dtable")});
    };
    return p;
  };
  // y is a copy. Up to 2000 terms are added in f32: sqrt(2000) / 3 ulps, five times that at worst.
  return {.make = make, .wide = {"dtable"}, .bounds = {{"y", 1e-9}, {"dtable", 1e-5}}};
}

// cu_seqlens where the op runs.
struct Boundaries {
  explicit Boundaries(std::vector<int32_t> ends)
      : cpu(DType::i32, {int64_t(ends.size())}), N(ends.back()) {
    std::copy(ends.begin(), ends.end(), cpu.view().as<int32_t>());
  }
  Tensor on(Device d) {
    if (d == Device::cpu) return cpu.view();
    if (!cuda.view()) {
      cuda = Buffer(DType::i32, {cpu.view().dim(0)}, d);
      copy(cpu.view(), cuda.view());
    }
    return cuda.view();
  }
  Buffer cpu, cuda;
  int64_t N;
};

GpuCase conv_case(int64_t C, int64_t W, std::shared_ptr<Boundaries> cu) {
  const auto make = [=](const Setup& setup) {
    OpProblem p(setup);
    p.row_input("x", {C}), p.row_input("dy", {C}), p.input("w", {C, W});
    p.row_output("y", {C}), p.row_output("dx", {C}), p.output("dw", {C, W});
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      short_conv_forward(ctx, {.x = t["x"],
                               .w = t["w"],
                               .cu_seqlens = cu->on(ctx.device),
                               .initial_state = {},
                               .y = t["y"],
                               .final_state = {}});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      short_conv_backward(ctx, {.x = t["x"],
                                .w = t["w"],
                                .cu_seqlens = cu->on(ctx.device),
                                .initial_state = {},
                                .dy = t["dy"],
                                .dfinal_state = {},
                                .dx = t.grad("dx"),
                                .dw = t.grad("dw"),
                                .dinitial_state = {}});
    };
    return p;
  };
  // Rounded once; dw is an f32 sum.
  return {.make = make, .wide = {"dw"}, .bounds = {{"y", .004}, {"dx", .004}, {"dw", 1e-4}}};
}

using EmbeddingGpu = GpuTest;

TEST_F(EmbeddingGpu, AgreesWithReferenceInF64) {
  for (const auto& [V, D] : {std::pair<int64_t, int64_t>{61, 64}, {3, 67}, {1, 8}})
    for (int64_t N : {1, 31, 32, 33, 64, 65, 300})
      expect_gpu_near_reference(embedding_case(V, D), N);
  expect_gpu_near_reference(embedding_case(3, 67), 2000);
  expect_gpu_near_reference(embedding_case(2000, 8), 2000);
}

TEST_F(EmbeddingGpu, KeepsTheOpPromises) {
  expect_gpu_op_promises(embedding_case(61, 64));
  expect_gpu_op_promises(embedding_case(5, 67));
}

using ShortConvGpu = GpuTest;

TEST_F(ShortConvGpu, AgreesWithReferenceInF64) {
  // One token; ends at, before and behind a warp's 64 rows and the CTA's 256; tiny and empty
  // documents, trailing ones too; a document over several blocks.
  for (const std::vector<int32_t>& ends : {std::vector<int32_t>{0, 1},
                                           {0, 64},
                                           {0, 63, 65},
                                           {0, 0, 1, 1, 3, 6, 64, 64, 66, 130, 130, 130},
                                           {0, 300},
                                           {0, 2, 190, 192, 193, 256},
                                           {0, 255, 258, 259, 600}})
    for (int64_t W : {1, 2, 3, 4, 5, 8})
      for (int64_t C : {1, 67, 72})
        expect_gpu_near_reference(conv_case(C, W, std::make_shared<Boundaries>(ends)), ends.back());
}

TEST_F(ShortConvGpu, KeepsTheOpPromises) {
  const auto many = std::make_shared<Boundaries>(std::vector<int32_t>{0, 100, 101, 350, 700});
  for (int64_t C : {64, 67}) {
    expect_gpu_same_bits(conv_case(C, 4, many), 700);
    expect_gpu_plan_is_run(conv_case(C, 4, many), 700);
    expect_gpu_no_rows(
        conv_case(C, 4, std::make_shared<Boundaries>(std::vector<int32_t>{0, 0, 0})));
  }
}

}  // namespace
}  // namespace sluice::test
