// tests/kernels/tensor_test.cpp -- views, owners, fills, context checks, lanes and random numbers.
#include "kernels/tensor/tensor.h"

#include <cmath>
#include <set>

#include "kernels/tensor/fill.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"
#include "kernels/tensor/rng.h"
#include "tests/support/cpu_context.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

Buffer counted(std::initializer_list<int64_t> shape) {  // 0, 1, 2, ...
  Buffer b(DType::i32, shape);
  for (int64_t i = 0; i < b.view().numel(); ++i)
    static_cast<int32_t*>(b.view().data)[i] = int32_t(i);
  return b;
}

TEST(Tensor, ViewsShareMemory) {
  const Buffer b = counted({4, 6});
  const Tensor t = b.view();
  EXPECT_EQ(t.dim(-1), 6);
  EXPECT_EQ(t.bytes(), 96);
  const Tensor rows = t.rows(1, 2), columns = t.columns(2, 3), both = columns.rows(3, 1);
  EXPECT_EQ(*rows.row<int32_t>(1), 12);
  EXPECT_EQ(columns.row<int32_t>(2)[1], 15);
  EXPECT_EQ(*both.row<int32_t>(0), 20);
  EXPECT_TRUE(t.dense() && rows.dense() && both.dense());  // one row has no gap
  EXPECT_FALSE(columns.dense());
  EXPECT_EQ(t.rows(4, 0).numel(), 0);
  EXPECT_EQ(t.reshape({2, 2, 6}).rows(1, 1).row<int32_t>(0)[11], 23);
  const Tensor heads = t.columns(2, 4).reshape({4, 2, 2});  // splits the last dimension in place
  EXPECT_EQ(heads.stride[0], 6);
  EXPECT_EQ(heads.row<int32_t>(3)[2], 22);
  EXPECT_EQ(t.rows(0, 0).columns(1, 2).reshape({0, 1, 2}).numel(), 0);
}

TEST(Tensor, MistakesAreNamed) {
  const Buffer b = counted({4, 6});
  const Tensor t = b.view();
  const auto says = [](const std::function<void()>& f, const std::vector<std::string>& parts) {
    expect_contains(error_of(f), parts);
  };
  says([&] { t.rows(3, 2); }, {"rows 3..5 of i32 [4, 6] on cpu"});
  says([&] { t.rows(-1, 1); }, {"rows -1..0"});
  says([&] { t.columns(5, 2); }, {"columns 5..7 of i32 [4, 6]"});
  says([&] { t.reshape({24}).columns(0, 1); }, {"columns 0..1 of i32 [24]"});
  says([&] { t.reshape({5, 5}); }, {"i32 [4, 6] on cpu cannot become i32 [5, 5] on cpu"});
  for (const auto& shape : {std::initializer_list<int64_t>{12}, {2, 6}, {2, 2, 3}})
    says([&] { t.columns(0, 3).reshape(shape); }, {"strided i32 [4, 3]", "split its last"});
  says([&] { t.dim(2); }, {"dim 2 of a rank-2 tensor"});
  says([&] { t.as<float>(); }, {"tensor is i32, asked for f32"});
  says([&] { make_tensor(nullptr, DType::f32, Device::cpu, {2, -1}); }, {"dim 1 is -1"});
  says([&] { make_tensor(nullptr, DType::f32, Device::cpu, {1, 1, 1, 1, 1, 1}); }, {"rank 6"});
  says(
      [&] {
        check_shape(t, "w", {4, 7}, DType::i32, Device::cpu);
      },
      {"tests/kernels/tensor_test.cpp:", "w is i32 [4, 6] on cpu, expected i32 [4, 7] on cpu"});
  says([&] { check_shape(t, "w", {4, 6}, DType::f32, Device::cpu); }, {"expected f32 [4, 6]"});
  says([&] { check_shape(t, "w", {4, 6}, DType::i32, Device::cuda); }, {"on cuda"});
  says([&] { check_shape({}, "w", {4, 6}, t); }, {"w is missing, expected i32 [4, 6]"});
  says([&] { for_float_type(t, [](auto) {}); }, {"expected f32 or f64, got i32"});
  check_shape(t, "w", {4, 6}, t);
}

TEST(Buffer, IsZeroAlignedAndCopied) {
  for (const int64_t n : {0, 1, 1000}) {
    const Buffer a(DType::f64, {n}), b(a.view());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.view().data) % 256, 0u);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(a.view().as<double>()[i], 0);
      a.view().as<double>()[i] = double(i);
    }
    copy(a.view(), b.view());
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(b.view().as<double>()[i], double(i));
  }
  const Buffer wide = counted({4, 6});
  EXPECT_TRUE(Buffer(wide.view().columns(1, 2)).view().dense());
  expect_contains(error_of([&] { copy(wide.view(), Buffer(DType::i32, {23}).view()); }),
                  {"from i32 [4, 6]", "to i32 [23]"});
  expect_contains(error_of([&] { copy(wide.view(), Buffer(DType::f32, {24}).view()); }), {"f32"});
  expect_contains(
      error_of([&] { copy(wide.view().columns(0, 2), Buffer(DType::i32, {8}).view()); }),
      {"from i32 [4, 2]"});
  const Tensor one = wide.view().reshape({24});  // overlapping ranges are a move
  copy(one.rows(0, 20), one.rows(2, 20));
  EXPECT_EQ(one.as<int32_t>()[21], 19);
  EXPECT_EQ(one.as<int32_t>()[2], 0);
}

TEST(Fill, TouchesItsElementsOnly) {
  const CpuContext ctx, plan(Mode::plan);
  const Buffer b = counted({3, 5});
  zero(ctx, b.view().columns(1, 2));
  for (int64_t n = 0; n < 3; ++n)
    for (int64_t c = 0; c < 5; ++c)
      EXPECT_EQ(b.view().row<int32_t>(n)[c], c == 1 || c == 2 ? 0 : n * 5 + c);
  zero(ctx, b.view().rows(0, 0));
  Tensor nowhere = b.view();
  nowhere.data = nullptr;
  zero(plan, nowhere);
  zero(ctx, b.view());
  EXPECT_EQ(b.view().row<int32_t>(2)[4], 0);
  const Buffer s(DType::f64, {1});
  set_scalar(ctx, s.view(), 0.1);
  EXPECT_EQ(*s.view().as<double>(), 0.1);
  expect_contains(error_of([&] { set_scalar(ctx, b.view(), 1); }), {"expected f64 [1]"});
}

TEST(Context, CuSeqlensAreChecked) {
  const CpuContext ctx, plan(Mode::plan);
  const auto check = [&](const std::vector<int32_t>& ends, const Context& c) {
    const Buffer cu(DType::i32, {int64_t(ends.size())});
    std::copy(ends.begin(), ends.end(), cu.view().as<int32_t>());
    return error_of(
        [&] { EXPECT_EQ(check_cu_seqlens(c, cu.view(), 9, "cu_q"), int64_t(ends.size()) - 1); });
  };
  EXPECT_EQ(check({0, 9}, ctx), "no error");
  EXPECT_EQ(check({0, 0, 4, 4, 9, 9}, ctx), "no error") << "empty documents, filled up with N";
  expect_contains(check({1, 9}, ctx), {"tensor_test.cpp", "cu_q", "starts at 1, expected 0"});
  expect_contains(check({0, 5, 4, 9}, ctx), {"falls from 5 to 4 at document 1"});
  expect_contains(check({0, 5}, ctx), {"ends at 5, expected 9 rows"});
  EXPECT_EQ(check({1, 5}, plan), "no error") << "there is no memory to look at";
  const Buffer f(DType::f32, {2}), m(DType::i32, {2, 2}), none(DType::i32, {0});
  for (const Buffer* wrong : {&f, &m, &none})
    expect_contains(error_of([&] { check_cu_seqlens(ctx, wrong->view(), 9); }),
                    {"cu_seqlens", "expected i32 [documents + 1] on cpu"});
  expect_contains(error_of([&] { scratch({}, DType::f32, {1}); }), {"no arena"});
  int ran = 0;
  parallel_for({}, 3, [&](int64_t) { ++ran; });  // without threads: here
  EXPECT_EQ(ran, 3);
}

// Lanes first, then pairwise: written out for a sum whose order shows in every bit.
TEST(Lanes, HaveOneFixedOrder) {
  const auto term = [](int64_t i) {
    return float(random_normal(3, uint64_t(i)) * std::exp(double(i % 23)));
  };
  for (const int64_t n : {0, 1, 15, 16, 17, 31, 32, 100, 1000}) {
    float lane[16] = {};
    for (int64_t i = 0; i < n; ++i) lane[i % 16] += term(i);
    for (const int half : {8, 4, 2, 1})
      for (int l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
    EXPECT_EQ(lane_sum<float>(n, term), lane[0]) << n;
  }
  const double parts[] = {1, 2, 10, 20, 100, 200};
  double out[] = {0.5, 0.5};
  sum_parts(parts, 3, 2, out, true);
  EXPECT_EQ(out[0], 111.5);
  EXPECT_EQ(out[1], 222.5);
  sum_parts(parts, 0, 2, out, false);
  EXPECT_EQ(out[1], 0);
}

// --- random numbers ---------------------------------------------------------------------------

// The known answers that Salmon et al. published with Random123 for philox4x32, ten rounds.
TEST(Rng, PhiloxKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, KeysDependOnSeedAndName) {
  std::set<uint64_t> keys;
  for (uint64_t seed = 0; seed < 50; ++seed)
    for (const char* name : {"", "a", "b", "ab", "ba", "layers.0.w", "layers.1.w"})
      keys.insert(rng_key(seed, name));
  EXPECT_EQ(keys.size(), 350u);
  EXPECT_EQ(rng_key(7, "w"), rng_key(7, std::string("w")));
}

// n = 200000 draws: a mean of them deviates by its deviation / sqrt(n); the bounds are five of
// that.
TEST(Rng, UniformAndNormalMoments) {
  constexpr int64_t n = 200000;
  const double root = std::sqrt(double(n));
  double u1 = 0, u2 = 0, z1 = 0, z2 = 0, z3 = 0, z4 = 0, tail = 0;
  for (uint64_t i = 0; i < uint64_t(n); ++i) {
    const double u = random_uniform(11, i), z = random_normal(12, i);
    ASSERT_TRUE(u >= 0 && u < 1);
    u1 += u, u2 += u * u;
    z1 += z, z2 += z * z, z3 += z * z * z, z4 += z * z * z * z;
    tail += std::abs(z) > 2;
  }
  EXPECT_NEAR(u1 / n, 0.5, 5 * std::sqrt(1.0 / 12) / root);
  EXPECT_NEAR(u2 / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45) / root);
  EXPECT_NEAR(z1 / n, 0, 5 / root);
  EXPECT_NEAR(z2 / n, 1, 5 * std::sqrt(2.0) / root);
  EXPECT_NEAR(z3 / n, 0, 5 * std::sqrt(15.0) / root);
  EXPECT_NEAR(z4 / n, 3, 5 * std::sqrt(96.0) / root);
  EXPECT_NEAR(tail / n, 0.0455003, 5 * std::sqrt(0.0455 * 0.9545) / root);
}

}  // namespace
}  // namespace sluice::test
