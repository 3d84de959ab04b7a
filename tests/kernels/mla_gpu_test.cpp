// tests/kernels/mla_gpu_test.cpp -- the CUDA back end of MLA's attention against the f64 reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/mla/mla.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

using Lengths = std::vector<int64_t>;

struct Dims {
  int64_t H, nope, rope, V;
  double theta = 0;
  Determinism determinism = Determinism::strict;
};

// Documents, and the largest logits, where the op runs.
struct Around {
  struct On {
    Buffer cu_q, cu_k, max_logit;
  };
  Around(const Lengths& queries, const Lengths& keys, int64_t H) {
    for (On* o : {&cpu, &gpu}) {
      const Device d = o == &cpu ? Device::cpu : Device::cuda;
      o->cu_q = boundaries(queries, d), o->cu_k = boundaries(keys, d);
      const Buffer low(DType::f32, {H});
      fill(low.view(), -1e30);
      o->max_logit = Buffer(DType::f32, {H}, d);
      copy(low.view(), o->max_logit.view());
    }
  }
  static Buffer boundaries(const Lengths& lengths, Device d) {
    const Buffer host(DType::i32, {int64_t(lengths.size()) + 1});
    int32_t* cu = host.view().as<int32_t>();
    for (size_t i = 0; i < lengths.size(); ++i) cu[i + 1] = cu[i] + int32_t(lengths[i]);
    Buffer b(DType::i32, {host.view().dim(0)}, d);
    copy(host.view(), b.view());
    return b;
  }
  const On& on(Device d) const { return d == Device::cpu ? cpu : gpu; }
  On cpu, gpu;
};

int64_t total(const Lengths& l) {
  return std::accumulate(l.begin(), l.end(), int64_t(0));
}

Context with(Context ctx, const Dims& d) {
  ctx.determinism = d.determinism;
  return ctx;
}

GpuCase mla_case(const Lengths& keys, const Dims& d, std::shared_ptr<Around> around) {
  const int64_t Nk = total(keys);
  const auto make = [=](const Setup& setup) {
    // Rows that are not aligned are refused: dense, whatever the layout.
    OpProblem p({.dtype = setup.dtype, .N = setup.N});
    p.row_input("q", {d.H, d.nope + d.rope}), p.row_input("d_o", {d.H, d.V});
    p.input("kv", {Nk, d.H, d.nope + d.V}), p.input("k_rope", {Nk, d.rope});
    p.row_output("o", {d.H, d.V}), p.row_output("lse", {d.H});
    p.row_output("dq", {d.H, d.nope + d.rope}), p.output("dkv", {Nk, d.H, d.nope + d.V});
    if (d.rope > 0) p.output("dk_rope", {Nk, d.rope});
    p.forward = [=](const Context& ctx, const OpProblem& t) {
      const auto& at = around->on(ctx.device);
      mla_forward(with(ctx, d), {.q = t["q"],
                                 .kv = t["kv"],
                                 .k_rope = d.rope > 0 ? t["k_rope"] : Tensor{},
                                 .cu_seqlens_q = at.cu_q.view(),
                                 .cu_seqlens_k = at.cu_k.view(),
                                 .o = t["o"],
                                 .lse = t["lse"],
                                 .max_logit = at.max_logit.view(),
                                 .rope_theta = d.theta,
                                 .longest = *std::max_element(keys.begin(), keys.end())});
    };
    p.backward = [=](const Context& ctx, const OpProblem& t) {
      const auto& at = around->on(ctx.device);
      mla_backward(with(ctx, d), {.q = t["q"],
                                  .kv = t["kv"],
                                  .k_rope = d.rope > 0 ? t["k_rope"] : Tensor{},
                                  .cu_seqlens_q = at.cu_q.view(),
                                  .cu_seqlens_k = at.cu_k.view(),
                                  .o = t["o"],
                                  .lse = t["lse"],
                                  .d_o = t["d_o"],
                                  .dq = t.grad("dq"),
                                  .dkv = t.grad("dkv"),
                                  .dk_rope = d.rope > 0 ? t.grad("dk_rope") : Grad{},
                                  .rope_theta = d.theta,
                                  .longest = *std::max_element(keys.begin(), keys.end())});
    };
    return p;
  };
  // Scores are f32 sums of exact products. Probabilities and ds are rounded to bf16 for their
  // products, o for d_o o_i, and all outputs: 2^-9 each, 3e-3 together in the root mean square. One
  // element may be a difference of terms that are all larger than it. N = 1: what is 0 in f64 is
  // 1e-7 here. What is turned is rounded again: a score is off by 2^-9 of each of its terms.
  return {.make = make,
          .wide = {"lse"},
          .bounds = {{"o", .02},
                     {"lse", d.theta > 0 ? 2e-3 : 1e-5},
                     {"dq", .08},
                     {"dkv", .08},
                     {"dk_rope", .08}},
          .least = 1e-3,
          .rms = 5e-3};
}

constexpr Determinism kFast = Determinism::fast;
const Dims kDims[] = {{2, 32, 16, 48},
                      {3, 64, 0, 64},
                      {2, 8, 8, 8},
                      {2, 128, 64, 128},
                      {1, 96, 32, 72},
                      {2, 32, 16, 48, 10000},
                      {1, 8, 16, 8, 100},
                      {2, 128, 64, 128, 10000, kFast},
                      {2, 128, 64, 128, 0, kFast}};

using MlaGpu = GpuTest;

TEST_F(MlaGpu, AgreesWithReferenceInF64) {
  // Ends of documents in and on the ends of tiles, tiny and empty documents, trailing ones.
  for (const Lengths& lengths :
       {Lengths{1}, {64}, {65, 63}, {128, 128}, {3, 0, 1, 100, 40, 1, 1, 0, 0}, {200}})
    for (const Dims& d : kDims) {
      const auto around = std::make_shared<Around>(lengths, lengths, d.H);
      expect_gpu_near_reference(mla_case(lengths, d, around), total(lengths));
      const Buffer max_logit(DType::f32, {d.H});
      copy(around->gpu.max_logit.view(), max_logit.view());
      for (int64_t h = 0; h < d.H; ++h)
        EXPECT_NEAR(element(max_logit.view(), h), element(around->cpu.max_logit.view(), h),
                    d.theta > 0 ? 0.02 : 1e-4);
    }
}

// The queries are the last tokens of their documents.
TEST_F(MlaGpu, FewerQueriesThanKeys) {
  const Lengths queries{1, 70, 0, 3}, keys{130, 70, 5, 90};
  for (const Dims& d : kDims)
    expect_gpu_near_reference(mla_case(keys, d, std::make_shared<Around>(queries, keys, d.H)),
                              total(queries));
}

TEST_F(MlaGpu, KeepsTheOpPromises) {
  const Dims d{2, 128, 64, 128}, rotated{2, 128, 64, 128, 10000};
  const Lengths many{100, 1, 250, 349}, equal{256, 256}, none{0, 0};
  for (const Dims& dims : {d, rotated})
    for (const Lengths& lengths : {many, equal}) {
      const GpuCase c = mla_case(lengths, dims, std::make_shared<Around>(lengths, lengths, d.H));
      expect_gpu_same_bits(c, total(lengths));
      expect_gpu_plan_is_run(c, total(lengths));
    }
  expect_gpu_no_rows(mla_case(none, d, std::make_shared<Around>(none, none, d.H)));
}

// Beyond the tiles of one CTA, and in strict order several calls of cuDNN by groups of heads, or
// (many documents, one of which may be long) our own backward; what fast computes is the same.
TEST_F(MlaGpu, StrictAndFastAgreeOnLongDocuments) {
  Lengths many(600, 1);
  many[7] = 1448;
  for (const Lengths& lengths : {Lengths(2, 8192), many}) {
    const Dims strictly{4, 16, 16, 32, 10000};
    Dims d = strictly;
    const int64_t N = total(lengths);
    const auto around = std::make_shared<Around>(lengths, lengths, d.H);
    const GpuContext gpu(int64_t(3) << 30);
    OpProblem strict = mla_case(lengths, d, around).make({.N = N});
    d.determinism = kFast;
    const GpuCase fast_case = mla_case(lengths, d, around);
    OpProblem fast = fast_case.make({.N = N});
    const Names wide{"lse"};
    round_inputs(strict, wide);
    copy_inputs(strict, fast);
    OnGpu on_strict(strict, mla_case(lengths, strictly, around).make, {.N = N}, wide),
        on_fast(fast, fast_case.make, {.N = N}, wide);
    on_strict.problem().run(gpu), on_fast.problem().run(gpu);
    SLUICE_CUDA(cudaDeviceSynchronize());
    on_strict.download(), on_fast.download();
    for (const auto& [name, slot] : strict.slots()) {
      if (!slot.output) continue;
      const ErrorStats e = compare_gpu(fast_case, fast[name], slot.tensor, 1);
      std::printf("  %lld documents: %s rms difference %.1e\n",
                  static_cast<long long>(lengths.size()), name.c_str(), e.rms);
      EXPECT_LE(e.rms, 5e-3) << name;
    }
  }
}

TEST_F(MlaGpu, WhatItDoesNotDoIsRefused) {
  const GpuContext& gpu = GpuContext::shared();
  const auto refuse = [&](const Dims& d) {
    const Lengths one{3};
    const Around around(one, one, d.H);
    const Buffer q(DType::bf16, {3, d.H, d.nope + d.rope}, Device::cuda),
        kv(DType::bf16, {3, d.H, d.nope + d.V}, Device::cuda),
        k_rope(DType::bf16, {3, d.rope}, Device::cuda), o(DType::bf16, {3, d.H, d.V}, Device::cuda),
        lse(DType::f32, {3, d.H}, Device::cuda);
    return error_of([&] {
      mla_forward(gpu, {.q = q.view(),
                        .kv = kv.view(),
                        .k_rope = k_rope.view(),
                        .cu_seqlens_q = around.gpu.cu_q.view(),
                        .cu_seqlens_k = around.gpu.cu_k.view(),
                        .o = o.view(),
                        .lse = lse.view()});
    });
  };
  expect_part(refuse({1, 8, 4, 8}), "expected multiples of 8");
  expect_part(refuse({1, 192, 8, 8}), "nope + rope is 200");
}

}  // namespace
}  // namespace sluice::test
