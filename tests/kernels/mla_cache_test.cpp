// tests/kernels/mla_cache_test.cpp -- cached attention against kernels/mla, absorbed against
// expanded.
#include "kernels/mla_cache/mla_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/mla/mla.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Dims {
  int64_t H, r, nope, rope, V;
  double theta;
};
const Dims kNope{3, 12, 8, 6, 5, 0}, kRope{3, 12, 8, 6, 5, 50}, kManyHeads{19, 40, 16, 8, 24, 1e4};

// Slots that hold `past` tokens and get `fresh` ones. Everything beyond a slot's tokens is NaN.
struct Problem {
  Problem(DType dtype, const std::vector<int64_t>& past, const std::vector<int64_t>& fresh,
          const Dims& d, int64_t room = 700, uint64_t seed = 1)
      : dims(d),
        S(int64_t(past.size())),
        N(0),
        cu(DType::i32, {S + 1}),
        zero(DType::i32, {S}),
        held(DType::i32, {S}),
        latents(dtype, {S, room, d.r + d.rope}),
        w(dtype, {d.H * (d.nope + d.V), d.r}) {
    for (int64_t s = 0; s < S; ++s) {
      held.view().as<int32_t>()[s] = int32_t(past[size_t(s)]);
      cu.view().as<int32_t>()[s + 1] = int32_t(N += fresh[size_t(s)]);
    }
    q = Buffer(dtype, {N, d.H, d.nope + d.rope});
    o = Buffer(dtype, {N, d.H, d.V});
    test::fill(o.view(), kNan);
    test::fill(latents.view(), kNan);
    test::fill_normal(w.view(), seed, 0.5);
    test::fill_normal(q.view(), seed + 1);
    // Token t of slot s has its values whatever the split into past and fresh.
    for (int64_t s = 0; s < S; ++s) {
      const int64_t tokens = past[size_t(s)] + fresh[size_t(s)];
      c.emplace_back(dtype, std::initializer_list<int64_t>{tokens, d.r});
      k_rope.emplace_back(dtype, std::initializer_list<int64_t>{tokens, d.rope});
      test::fill_normal(c.back().view(), seed + 10 + uint64_t(s));
      test::fill_normal(k_rope.back().view(), seed + 1000 + uint64_t(s));
    }
  }
  // The past of each slot first, then its fresh tokens, as generation does.
  void append(const Context& ctx) const {
    for (int64_t s = 0; s < S; ++s) {
      const int64_t past = held.view().as<int32_t>()[s];
      const int64_t fresh = c[size_t(s)].view().dim(0) - past;
      append_one(ctx, s, 0, past);
      append_one(ctx, s, past, fresh);
    }
  }
  void append_one(const Context& ctx, int64_t s, int64_t past, int64_t n) const {
    Buffer offsets(DType::i32, {2}), before(DType::i32, {1});
    offsets.view().as<int32_t>()[1] = int32_t(n);
    before.view().as<int32_t>()[0] = int32_t(past);
    latent_append(ctx, {.c = c[size_t(s)].view().rows(past, n),
                        .k_rope = k_rope[size_t(s)].view().rows(past, n),
                        .cu_seqlens = offsets.view(),
                        .past = before.view(),
                        .latents = latents.view().rows(s, 1),
                        .rope_theta = dims.theta});
  }
  MlaCached args() const {
    return {.q = q.view(),
            .latents = latents.view(),
            .w_kv_b = w.view(),
            .cu_seqlens = cu.view(),
            .past = held.view(),
            .o = o.view(),
            .rope_theta = dims.theta};
  }

  Dims dims;
  int64_t S, N;
  Buffer cu, zero, held, latents, w, q, o;
  std::vector<Buffer> c, k_rope;
};

using test::copy_elements;
using test::expect_same_bits;

enum class Form : uint8_t { prefill, decode };
void attend(const Context& ctx, Form form, const MlaCached& a) {
  form == Form::decode ? mla_decode(ctx, a) : mla_prefill(ctx, a);
}

// f64: the training kernel on keys and values expanded by hand: the definition that all forms owe.
Buffer by_mla(const Problem& p) {
  const auto [H, r, nope, rope, V, theta] = p.dims;
  Buffer o(p.o.view());
  const test::SmallContext ctx(Mode::reference);
  for (int64_t s = 0; s < p.S; ++s) {
    const int32_t* cu = p.cu.view().as<int32_t>();
    const int64_t keys = p.c[size_t(s)].view().dim(0), n = cu[s + 1] - cu[s];
    if (n == 0) continue;
    Buffer kv(p.q.view().dtype, {keys, H, nope + V}), lse(p.q.view().dtype, {n, H});
    Buffer cu_q(DType::i32, {2}), cu_k(DType::i32, {2});
    cu_q.view().as<int32_t>()[1] = int32_t(n);
    cu_k.view().as<int32_t>()[1] = int32_t(keys);
    for (int64_t j = 0; j < keys; ++j)
      for (int64_t e = 0; e < H * (nope + V); ++e) {
        double sum = 0;
        for (int64_t d = 0; d < r; ++d)
          sum += p.w.view().as<double>()[e * r + d] * p.c[size_t(s)].view().as<double>()[j * r + d];
        kv.view().as<double>()[j * H * (nope + V) + e] = sum;
      }
    mla_forward(ctx, {.q = p.q.view().rows(cu[s], n),
                      .kv = kv.view(),
                      .k_rope = p.k_rope[size_t(s)].view(),
                      .cu_seqlens_q = cu_q.view(),
                      .cu_seqlens_k = cu_k.view(),
                      .o = o.view().rows(cu[s], n),
                      .lse = lse.view(),
                      .rope_theta = theta});
  }
  return o;
}

struct Case {
  const char* name;
  Mode mode;
  Form form;
  Dims dims;
};
class MlaCache : public testing::TestWithParam<Case> {
 protected:
  // Slots that are idle, new, full, and on both sides of a tile (64) and a split (256).
  static Problem problem(DType dtype, Form form, const Dims& d) {
    if (form == Form::decode)
      return Problem(dtype, {0, 5, 63, 100, 255, 256, 699, 600}, {1, 0, 1, 1, 1, 1, 1, 1}, d);
    return Problem(dtype, {0, 0, 70, 0, 3, 64, 600}, {1, 70, 2, 0, 64, 65, 100}, d);
  }
};
INSTANTIATE_TEST_SUITE_P(
    Forms, MlaCache,
    testing::Values(Case{"reference_nope", Mode::reference, Form::prefill, kNope},
                    Case{"reference_rope", Mode::reference, Form::decode, kRope},
                    Case{"prefill_nope", Mode::run, Form::prefill, kNope},
                    Case{"prefill_rope", Mode::run, Form::prefill, kRope},
                    Case{"prefill_many_heads", Mode::run, Form::prefill, kManyHeads},
                    Case{"decode_nope", Mode::run, Form::decode, kNope},
                    Case{"decode_rope", Mode::run, Form::decode, kRope},
                    Case{"decode_many_heads", Mode::run, Form::decode, kManyHeads}),
    [](const auto& p) { return p.param.name; });

// f64: sums of at most 700 terms in another order, and scores of size 10 or so before exp: 1e-13 of
// the largest output. Nothing else differs.
TEST_P(MlaCache, EqualsTheTrainingKernelInF64) {
  const Case& c = GetParam();
  const Problem p = problem(DType::f64, c.form, c.dims);
  const test::SmallContext ctx(c.mode);
  p.append(ctx);
  attend(ctx, c.form, p.args());
  const Buffer want = by_mla(p);
  double worst = 0;
  for (int64_t i = 0; i < want.view().numel(); ++i)
    worst = std::max(worst, std::abs(test::element(p.o.view(), i) - test::element(want.view(), i)));
  EXPECT_LT(worst, 1e-13);
  for (int64_t i = 0; i < p.o.view().numel(); ++i)
    ASSERT_TRUE(std::isfinite(test::element(p.o.view(), i))) << i;
}

// f32 inputs, f64 reference. A score is a sum of r + rope products, rounded at sqrt(r) ulps of its
// largest terms, and enters an exponent: a few tens of ulps of the output.
TEST_P(MlaCache, F32IsNearTheReference) {
  const Case& c = GetParam();
  const Problem got = problem(DType::f32, c.form, c.dims);
  const Problem want = problem(DType::f64, c.form, c.dims);
  copy_elements(got.w.view(), want.w.view());
  copy_elements(got.q.view(), want.q.view());
  for (size_t s = 0; s < got.c.size(); ++s) {
    copy_elements(got.c[s].view(), want.c[s].view());
    copy_elements(got.k_rope[s].view(), want.k_rope[s].view());
  }
  const test::SmallContext fast(c.mode), exact(Mode::reference);
  got.append(fast);
  want.append(exact);
  attend(fast, c.form, got.args());
  attend(exact, c.form, want.args());
  const auto e = test::compare(got.o.view(), want.o.view(), 100);
  EXPECT_LT(e.worst, 1) << e;
}

TEST_P(MlaCache, ThreadsChangeNoBit) {
  const Case& c = GetParam();
  const Problem a = problem(DType::f32, c.form, c.dims), b = problem(DType::f32, c.form, c.dims);
  const test::SmallContext one(c.mode, 1), many(c.mode, 3);
  a.append(one);
  b.append(many);
  attend(one, c.form, a.args());
  attend(many, c.form, b.args());
  expect_same_bits(a.o.view(), b.o.view(), "threads");
}

// A slot's output has the bits of that slot alone, whatever the others hold.
TEST_P(MlaCache, SlotsDoNotTouchEachOther) {
  const Case& c = GetParam();
  const Problem all = problem(DType::f32, c.form, c.dims);
  const test::SmallContext ctx(c.mode);
  all.append(ctx);
  attend(ctx, c.form, all.args());
  for (int64_t s = 0; s < all.S; ++s) {
    const int32_t* cu = all.cu.view().as<int32_t>();
    const int64_t n = cu[s + 1] - cu[s];
    if (n == 0) continue;
    Buffer offsets(DType::i32, {2}), o(DType::f32, {n, c.dims.H, c.dims.V});
    offsets.view().as<int32_t>()[1] = int32_t(n);
    MlaCached one = all.args();
    one.q = all.q.view().rows(cu[s], n);
    one.latents = all.latents.view().rows(s, 1);
    one.cu_seqlens = offsets.view();
    one.past = all.held.view().rows(s, 1);
    one.o = o.view();
    attend(ctx, c.form, one);
    expect_same_bits(o.view(), all.o.view().rows(cu[s], n), "slot " + std::to_string(s));
  }
}

// Absorbed and expanded are one function: f64 to rounding, f32 within the sum of their distances.
TEST(MlaCacheForms, AbsorbedEqualsExpanded) {
  for (const Dims& d : {kNope, kRope, kManyHeads}) {
    const test::SmallContext ctx;
    for (const DType dtype : {DType::f64, DType::f32}) {
      const std::vector<int64_t> past{0, 5, 255, 256, 699}, fresh{1, 1, 1, 0, 1};
      const Problem absorbed(dtype, past, fresh, d), expanded(dtype, past, fresh, d);
      absorbed.append(ctx);
      expanded.append(ctx);
      mla_decode(ctx, absorbed.args());
      mla_prefill(ctx, expanded.args());
      const auto e = test::compare(absorbed.o.view(), expanded.o.view(), 200);
      EXPECT_LT(e.worst, 1) << name(dtype) << " " << e;
      std::cout << "H " << d.H << ", r " << d.r << ", " << name(dtype) << ": rms difference "
                << e.rms << "\n";
    }
  }
}

// A key rotated at its own position when stored is what the training kernel makes of it later: the
// rotation must use the position in the sequence, not in the call.
TEST(MlaCacheForms, StoredKeysAreRotatedByPosition) {
  const Problem p(DType::f64, {3}, {2}, kRope);
  p.append(test::SmallContext());
  for (int64_t t = 0; t < 5; ++t) {
    const double u = test::element(p.k_rope[0].view(), t * 6),
                 v = test::element(p.k_rope[0].view(), t * 6 + 1);
    const double* got = p.latents.view().row<double>(0) + t * 18 + 12;
    EXPECT_NEAR(got[0], u * std::cos(double(t)) - v * std::sin(double(t)), 1e-14);
    EXPECT_NEAR(got[1], u * std::sin(double(t)) + v * std::cos(double(t)), 1e-14);
  }
}

TEST(MlaCacheForms, NothingBesideASlotsTokensIsWritten) {
  const Problem p(DType::f32, {3, 0, 699}, {2, 0, 1}, kRope);
  p.append(test::SmallContext());
  const int64_t width = 18, lengths[] = {5, 0, 700};
  for (int64_t s = 0; s < 3; ++s)
    for (int64_t i = 0; i < 700 * width; ++i)
      ASSERT_EQ(std::isnan(p.latents.view().row<float>(s)[i]), i >= lengths[s] * width) << s << i;
}

TEST(MlaCacheForms, NoRowsAreLegal) {
  const Problem p(DType::f32, {3, 7}, {0, 0}, kNope);
  const test::SmallContext ctx;
  p.append(ctx);
  mla_prefill(ctx, p.args());
  mla_decode(ctx, p.args());
}

TEST(MlaCacheForms, ContractsAreChecked) {
  const test::SmallContext ctx;
  const Problem two(DType::f32, {3}, {2}, kNope), full(DType::f32, {700}, {1}, kNope);
  EXPECT_THROW(mla_decode(ctx, two.args()), Error);    // two rows in a slot
  EXPECT_THROW(mla_prefill(ctx, full.args()), Error);  // past the room
  for (auto broken :
       {+[](MlaCached& a) {
          a.q = a.q.reshape({a.q.dim(0), a.q.dim(1) * a.q.dim(2)});
        },
        +[](MlaCached& a) { a.w_kv_b = a.w_kv_b.rows(1, a.w_kv_b.dim(0) - 1); },
        +[](MlaCached& a) { a.past = a.cu_seqlens; }, +[](MlaCached& a) { a.o = a.o.rows(0, 1); },
        +[](MlaCached& a) { a.rope_theta = 0.5; }}) {
    const Problem good(DType::f32, {3}, {2}, kNope);
    MlaCached a = good.args();
    broken(a);
    EXPECT_THROW(mla_prefill(ctx, a), Error);
  }
}

}  // namespace
}  // namespace sluice
