// tests/model/packed_test.cpp -- packed == separate, with slow decay: nothing leaks across a
// boundary.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

// 1..40 tokens among long ones, empty ones included; longer than a chunk of 64 twice.
const std::vector<int64_t> kLengths = {1, 0, 40, 3, 150, 17, 0, 2, 64, 65, 33, 1, 0};

// Logits [N, V] of every row; the gradients go into the store.
Buffer run(const Context& ctx, PlainStore& params, const Lm& lm, const test::Documents& docs) {
  Buffer kept;
  const LmBatch batch = docs.batch();
  const int64_t N = batch.tokens.dim(0);
  const Buffer rows(DType::i32, {N});
  for (int64_t n = 0; n < N; ++n) rows.view().as<int32_t>()[n] = int32_t(n);
  {
    Tape tape(ctx, params, Tape::Mode::infer);
    const Var logits = lm.logits(tape, batch, rows.view(), nullptr);
    kept = Buffer(logits.value);
    copy(logits.value, kept.view());
  }
  Tape tape(ctx, params, Tape::Mode::train);
  tape.backward(lm.loss(tape, batch, Recompute::none));
  return kept;
}

std::vector<double> values(const Tensor& t) {
  std::vector<double> v;
  for (int64_t i = 0; i < t.numel(); ++i) v.push_back(test::element(t, i));
  return v;
}

// Token n is n, so that the gradient of the table [positions, D] is the gradient by each input
// vector.
LmConfig one_row_a_position(LmConfig c, int64_t positions) {
  c.vocab_size = positions;
  return c;
}

struct Gradients {
  std::vector<double> logits, inputs;           // row by row
  std::vector<std::vector<double>> parameters;  // all but the table
};

Gradients gradients(const Context& ctx, const LmConfig& config, DType dtype,
                    const test::Documents& docs, int64_t first_token, int64_t positions) {
  PlainStore params(dtype);
  const Lm lm(one_row_a_position(config, positions), params);
  params.allocate();
  initialize(params, 3);
  test::set_slow_decay(params);
  test::set_unequal_loads(params);
  LmBatch batch = docs.batch();
  const int64_t N = batch.tokens.dim(0);
  for (int64_t n = 0; n < N; ++n) batch.tokens.as<int32_t>()[n] = int32_t(first_token + n);
  params.start_step();
  const Buffer logits = run(ctx, params, lm, docs);
  params.finish_gradients();
  Gradients g;
  g.logits = values(logits.view());
  for (const Shard& s : params.trained_shards()) {
    const std::vector<double> all = values(s.grad);
    if (params.spec(s.id).name == "embedding.weight") {
      const int64_t D = params.spec(s.id).shape[1];
      g.inputs.assign(all.begin() + first_token * D, all.begin() + (first_token + N) * D);
    } else {
      g.parameters.push_back(all);
    }
  }
  return g;
}

constexpr double kUlps = 1000;  // of the largest value, in the fast path

struct Worst {
  double logits = 0, inputs = 0, parameters = 0;  // largest difference over the largest value
  bool bitwise = true;                            // of logits and inputs
};

Worst packed_against_separate(const Context& ctx, const LmConfig& config, DType dtype) {
  const test::Documents packed(kLengths);
  const int64_t positions = packed.batch().tokens.dim(0);
  const Gradients all = gradients(ctx, config, dtype, packed, 0, positions);
  std::vector<std::vector<double>> sums;
  std::vector<double> logits, inputs;
  for (size_t d = 0; d < kLengths.size(); ++d) {
    const test::Documents one = packed.only(int64_t(d));
    const Gradients g =
        gradients(ctx, config, dtype, one, packed.cu.view().as<int32_t>()[d], positions);
    logits.insert(logits.end(), g.logits.begin(), g.logits.end());
    inputs.insert(inputs.end(), g.inputs.begin(), g.inputs.end());
    if (sums.empty()) sums.resize(g.parameters.size());
    for (size_t p = 0; p < sums.size(); ++p) {
      sums[p].resize(g.parameters[p].size());
      for (size_t i = 0; i < sums[p].size(); ++i) sums[p][i] += g.parameters[p][i];
    }
  }
  auto difference = [](const std::vector<double>& a, const std::vector<double>& b) {
    double worst = 0, scale = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::abs(a[i] - b[i]));
      scale = std::max(scale, std::abs(b[i]));
    }
    return a.size() != b.size() ? INFINITY : worst / std::max(scale, 1e-300);
  };
  Worst w;
  w.logits = difference(all.logits, logits);
  w.inputs = difference(all.inputs, inputs);
  w.bitwise = all.logits == logits && all.inputs == inputs;
  for (size_t p = 0; p < sums.size(); ++p)
    w.parameters = std::max(w.parameters, difference(all.parameters[p], sums[p]));
  std::cout << "logits " << w.logits << ", input gradients " << w.inputs << ", parameter gradients "
            << w.parameters << ", bitwise " << w.bitwise << "\n";
  return w;
}

class Packed : public ::testing::TestWithParam<test::Variant> {};

INSTANTIATE_TEST_SUITE_P(Defaults, Packed,
                         ::testing::Values(test::Variant{"defaults", test::tiny_config()}),
                         [](const auto& p) { return p.param.name; });
INSTANTIATE_TEST_SUITE_P(Experts, Packed,
                         ::testing::Values(test::Variant{"moe", test::tiny_moe_config()}),
                         [](const auto& p) { return p.param.name; });
INSTANTIATE_TEST_SUITE_P(Variants, Packed, ::testing::ValuesIn(test::mixer_variants()),
                         [](const auto& p) { return p.param.name; });

TEST_P(Packed, EqualsSeparateBitwiseInReferenceMode) {
  const Worst w =
      packed_against_separate(test::CpuContext(Mode::reference), GetParam().config, DType::f64);
  EXPECT_TRUE(w.bitwise);
  EXPECT_LT(w.parameters, 1e-12);  // the sums over documents are taken in another order
}

TEST_P(Packed, EqualsSeparateInFastF64) {
  const Worst w = packed_against_separate(test::CpuContext(), GetParam().config, DType::f64);
  // GEMM tiles end at other rows, so sums may be ordered otherwise: 360 ulps were measured.
  EXPECT_LT(std::max({w.logits, w.inputs, w.parameters}), kUlps * 0x1p-52);
}

TEST_P(Packed, EqualsSeparateInFastF32) {
  const Worst w = packed_against_separate(test::CpuContext(), GetParam().config, DType::f32);
  // The same algorithm in f32: the same number of ulps.
  EXPECT_LT(std::max({w.logits, w.inputs, w.parameters}), kUlps * 0x1p-23);
}

}  // namespace
}  // namespace sluice
