// tests/kernels/mla_test.cpp -- closed forms, gradients, packing, pieces, threads, contract.
#include "kernels/mla/mla.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using Lengths = std::vector<int64_t>;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

int64_t total(const Lengths& l) {
  return std::accumulate(l.begin(), l.end(), int64_t(0));
}

struct Dims {
  int64_t H, nope, rope, V;
  double theta = 0;
};

// One problem, all inputs random, outputs NaN. q and k_rope are columns of something wider.
struct Problem {
  Problem(DType dtype, const Lengths& queries, const Lengths& keys, const Dims& d)
      : dims(d),
        Nq(total(queries)),
        Nk(total(keys)),
        documents(int64_t(keys.size())),
        wide_q(dtype, {Nq, d.H * (d.nope + d.rope) + 3}),
        kv(dtype, {Nk, d.H, d.nope + d.V}),
        wide_k_rope(dtype, {Nk, d.rope + 7}),
        cu_q(DType::i32, {documents + 1}),
        cu_k(DType::i32, {documents + 1}),
        o(dtype, {Nq, d.H, d.V}),
        lse(dtype, {Nq, d.H}),
        d_o(o.view()),
        dq(dtype, {Nq, d.H, d.nope + d.rope}),
        dkv(kv.view()),
        dk_rope(dtype, {Nk, d.rope}),
        q(wide_q.view().columns(2, d.H * (d.nope + d.rope)).reshape({Nq, d.H, d.nope + d.rope})),
        k_rope(wide_k_rope.view().columns(5, d.rope)) {
    for (size_t i = 0; i < keys.size(); ++i) {
      cu_q.view().as<int32_t>()[i + 1] = cu_q.view().as<int32_t>()[i] + int32_t(queries[i]);
      cu_k.view().as<int32_t>()[i + 1] = cu_k.view().as<int32_t>()[i] + int32_t(keys[i]);
    }
    uint64_t seed = 1;
    for (const Tensor& t : inputs()) test::fill_normal(t, seed++);
    for (const Tensor& t : outputs()) test::fill(t, kNan);
  }
  Problem(DType dtype, const Lengths& lengths, const Dims& d)
      : Problem(dtype, lengths, lengths, d) {}

  MlaForward forward() const {
    return {.q = q,
            .kv = kv.view(),
            .k_rope = dims.rope > 0 ? k_rope : Tensor{},
            .cu_seqlens_q = cu_q.view(),
            .cu_seqlens_k = cu_k.view(),
            .o = o.view(),
            .lse = lse.view(),
            .rope_theta = dims.theta};
  }
  MlaBackward backward(bool add = false) const {
    const MlaForward f = forward();
    return {.q = f.q,
            .kv = f.kv,
            .k_rope = f.k_rope,
            .cu_seqlens_q = f.cu_seqlens_q,
            .cu_seqlens_k = f.cu_seqlens_k,
            .o = f.o,
            .lse = f.lse,
            .d_o = d_o.view(),
            .dq = {dq.view(), add},
            .dkv = {dkv.view(), add},
            .dk_rope = {dims.rope > 0 ? dk_rope.view() : Tensor{}, add},
            .rope_theta = dims.theta};
  }
  std::vector<Tensor> inputs() const { return {q, kv.view(), k_rope, d_o.view()}; }
  std::vector<Tensor> outputs() const {
    return {o.view(), lse.view(), dq.view(), dkv.view(), dk_rope.view()};
  }
  void run(const Context& ctx) const {
    mla_forward(ctx, forward());
    mla_backward(ctx, backward());
  }

  Dims dims;
  int64_t Nq, Nk, documents;
  Buffer wide_q, kv, wide_k_rope, cu_q, cu_k, o, lse, d_o, dq, dkv, dk_rope;
  Tensor q, k_rope;
};

void copy_elements(const Tensor& from, const Tensor& to) {
  for (int64_t i = 0; i < from.numel(); ++i) test::set_element(to, i, test::element(from, i));
}
void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.numel(), b.numel()) << what;
  for (int64_t i = 0; i < a.numel(); ++i)
    ASSERT_EQ(test::element(a, i), test::element(b, i)) << what << ", element " << i;
}
// |a - b| within ulps of the dtype; at 0.5 ulp only equal values pass.
void expect_close(const Tensor& a, const Tensor& b, double ulps, const std::string& what) {
  const auto e = test::compare(a, b, ulps);
  EXPECT_LT(e.worst, 1) << what << " " << e;
}

class Mla : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Mla, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

const Dims kNope{3, 8, 6, 5, 0}, kRope{3, 8, 6, 5, 50}, kNoShared{2, 8, 0, 4, 0};

// Queries of zero see all keys alike: o is the mean of the values so far, lse the log of their
// number.
TEST_P(Mla, UniformScoresGiveTheMean) {
  const test::CpuContext ctx(GetParam());
  const Problem p(DType::f64, {70, 0, 130, 1}, {70, 4, 200, 1}, kRope);
  test::fill(p.q, 0);
  mla_forward(ctx, p.forward());
  const auto [H, nope, rope, V, theta] = p.dims;
  const int32_t *cq = p.cu_q.view().as<int32_t>(), *ck = p.cu_k.view().as<int32_t>();
  for (int64_t d = 0; d < p.documents; ++d)
    for (int64_t n = cq[d]; n < cq[d + 1]; ++n) {
      const int64_t seen = ck[d + 1] - ck[d] - (cq[d + 1] - n) + 1;
      for (int64_t h = 0; h < H; ++h) {
        EXPECT_NEAR(p.lse.view().row<double>(n)[h], std::log(double(seen)), 1e-13);
        for (int64_t e = 0; e < V; ++e) {
          double sum = 0;
          for (int64_t j = 0; j < seen; ++j)
            sum += p.kv.view().row<double>(ck[d] + j)[h * (nope + V) + nope + e];
          EXPECT_NEAR(p.o.view().row<double>(n)[h * V + e], sum / double(seen), 1e-13);
        }
      }
    }
}

// The first token of a document sees itself alone: o = v, lse = its score, and no score gradient.
TEST_P(Mla, OneToken) {
  const test::CpuContext ctx(GetParam());
  for (const Dims& dims : {kNope, kRope, kNoShared}) {
    const Problem p(DType::f64, {1, 1, 0, 1}, dims);
    p.run(ctx);
    const int64_t H = dims.H, nope = dims.nope, rope = dims.rope, V = dims.V, kw = nope + V;
    for (int64_t n = 0; n < p.Nq; ++n)
      for (int64_t h = 0; h < H; ++h) {
        const double *q = p.q.row<double>(n) + h * (nope + rope),
                     *k = p.kv.view().row<double>(n) + h * kw;
        double score = 0;  // position 0 is not rotated
        for (int64_t i = 0; i < nope; ++i) score += q[i] * k[i];
        for (int64_t i = 0; i < rope; ++i) score += q[nope + i] * p.k_rope.row<double>(n)[i];
        EXPECT_NEAR(p.lse.view().row<double>(n)[h], score / std::sqrt(double(nope + rope)), 1e-13);
        for (int64_t e = 0; e < V; ++e) {
          EXPECT_NEAR(p.o.view().row<double>(n)[h * V + e], k[nope + e], 1e-13);
          EXPECT_NEAR(p.dkv.view().row<double>(n)[h * kw + nope + e],
                      p.d_o.view().row<double>(n)[h * V + e], 1e-13);
        }
        for (int64_t i = 0; i < nope + rope; ++i)
          EXPECT_NEAR(p.dq.view().row<double>(n)[h * (nope + rope) + i], 0, 1e-13);
      }
  }
}

// Rotated by hand: two tokens, one pair, so q_1 k_0 is turned by one position and q_1 k_1 by none.
TEST_P(Mla, RotationIsRelative) {
  const test::CpuContext ctx(GetParam());
  const Problem p(DType::f64, {2}, {1, 0, 2, 1, 10});
  mla_forward(ctx, p.forward());
  const double *q = p.q.row<double>(1), *k0 = p.k_rope.row<double>(0),
               *k1 = p.k_rope.row<double>(1);
  const double scale = 1 / std::sqrt(2.0), c = std::cos(1.0), s = std::sin(1.0);
  const double s0 = scale * (c * (q[0] * k0[0] + q[1] * k0[1]) + s * (q[0] * k0[1] - q[1] * k0[0]));
  const double s1 = scale * (q[0] * k1[0] + q[1] * k1[1]);
  EXPECT_NEAR(p.lse.view().row<double>(1)[0], std::log(std::exp(s0) + std::exp(s1)), 1e-14);
}

TEST_P(Mla, Gradients) {
  const Lengths lengths = {5, 0, 1, 40, 13, 0}, keys = {7, 3, 1, 90, 13, 0},
                queries = {5, 0, 1, 70, 2, 0};
  for (const Dims& dims : {kNope, kRope, kNoShared, Dims{1, 0, 4, 3, 10}})
    for (bool pieces : {false, true}) {
      const test::CpuContext ctx(GetParam());
      const Problem p(DType::f64, pieces ? queries : lengths, pieces ? keys : lengths, dims);
      p.run(ctx);
      const auto loss = [&] {
        mla_forward(ctx, p.forward());
        return test::dot(p.d_o.view(), p.o.view());
      };
      // Central differences in f64 are good to about 1e-9; a wrong term shows at 1e-2.
      EXPECT_LT(test::gradcheck(loss, p.q, p.dq.view(), 11), 1e-6);
      EXPECT_LT(test::gradcheck(loss, p.kv.view(), p.dkv.view(), 12), 1e-6);
      if (dims.rope > 0) {
        EXPECT_LT(test::gradcheck(loss, p.k_rope, p.dk_rope.view(), 13), 1e-6);
      }
    }
}

TEST(MlaCpu, AgreesWithReferenceInF64) {
  for (const Dims& dims : {kNope, kRope, kNoShared, Dims{2, 32, 16, 33, 10000}}) {
    const test::CpuContext cpu(Mode::run), reference(Mode::reference);
    const Lengths queries = {1, 0, 130, 64, 3, 200}, keys = {1, 5, 130, 129, 65, 200};
    const Problem got(DType::f32, queries, keys, dims), want(DType::f64, queries, keys, dims);
    for (size_t i = 0; i < 4; ++i) copy_elements(got.inputs()[i], want.inputs()[i]);  // rounded
    got.run(cpu);
    want.run(reference);
    // A score of magnitude up to about 6 is off by a few ulps of 6, so its exp by 20 ulps; o and
    // lse average over such terms. The backward multiplies three of them, and dk sums up to 200
    // queries.
    const char* name[] = {"o", "lse", "dq", "dkv", "dk_rope"};
    const double ulps[] = {32, 16, 128, 128, 128};
    for (size_t i = 0; i < (dims.rope > 0 ? 5 : 4); ++i)
      expect_close(got.outputs()[i], want.outputs()[i], ulps[i], name[i]);
  }
}

// Documents of several spans, with keys before the queries that end anywhere in one; more heads
// than are worked on at a time.
TEST(MlaCpu, LongDocumentsAgreeWithReference) {
  for (const Dims& dims : {Dims{6, 2, 2, 1, 0}, Dims{5, 1, 2, 2, 100}}) {
    const Lengths queries = {520, 0, 600}, keys = {1030, 3, 600};
    const Problem got(DType::f64, queries, keys, dims), want(DType::f64, queries, keys, dims);
    got.run(test::CpuContext(Mode::run));
    want.run(test::CpuContext(Mode::reference));
    // Sums of up to 1030 terms in another order.
    for (size_t i = 0; i < 5; ++i)
      expect_close(got.outputs()[i], want.outputs()[i], 512, "output " + std::to_string(i));
  }
}

// Scores of several hundred: exp of them is out of range, their softmax is not.
TEST_P(Mla, LargeScores) {
  const test::CpuContext ctx(GetParam());
  const Problem p(DType::f32, {150}, kNope);
  for (int64_t i = 0; i < p.q.numel(); ++i) test::set_element(p.q, i, 300 * test::element(p.q, i));
  p.run(ctx);
  for (const Tensor& t : p.outputs())
    for (int64_t i = 0; i < t.numel(); ++i) ASSERT_TRUE(std::isfinite(test::element(t, i)));
}

// Bitwise in both: a document never sees where in the pack it lies.
TEST_P(Mla, PackedEqualsSeparate) {
  const test::CpuContext ctx(GetParam());
  const int64_t two_spans = GetParam() == Mode::run ? 540 : 70;
  const Lengths queries = {5, 0, 100, 1, two_spans}, keys = {6, 2, 170, 1, two_spans};
  for (const Dims& dims : {kNope, kRope}) {
    const Problem pack(DType::f32, queries, keys, dims);
    pack.run(ctx);
    const int32_t *cq = pack.cu_q.view().as<int32_t>(), *ck = pack.cu_k.view().as<int32_t>();
    for (size_t d = 0; d < keys.size(); ++d) {
      const int64_t nq = queries[d], nk = keys[d];
      const Problem one(DType::f32, {nq}, {nk}, dims);
      copy_elements(pack.q.rows(cq[d], nq), one.q);
      copy_elements(pack.d_o.view().rows(cq[d], nq), one.d_o.view());
      copy_elements(pack.kv.view().rows(ck[d], nk), one.kv.view());
      copy_elements(pack.k_rope.rows(ck[d], nk), one.k_rope);
      one.run(ctx);
      expect_same_bits(one.o.view(), pack.o.view().rows(cq[d], nq), "o");
      expect_same_bits(one.lse.view(), pack.lse.view().rows(cq[d], nq), "lse");
      expect_same_bits(one.dq.view(), pack.dq.view().rows(cq[d], nq), "dq");
      expect_same_bits(one.dkv.view(), pack.dkv.view().rows(ck[d], nk), "dkv");
      expect_same_bits(one.dk_rope.view(), pack.dk_rope.view().rows(ck[d], nk), "dk_rope");
    }
  }
}

// A prefill in pieces, then token by token. Bitwise in the reference; the fast path's tiles lie
// elsewhere, so its sums associate differently: o and lse within the 32 ulps of the test above.
TEST_P(Mla, PiecesEqualWhole) {
  const test::CpuContext ctx(GetParam());
  for (const Dims& dims : {kNope, kRope}) {
    const Problem whole(DType::f32, {150}, dims);
    mla_forward(ctx, whole.forward());
    int64_t end = 0;
    for (int64_t n : {70, 1, 1, 64, 0, 13, 1}) {
      end += n;
      const Problem piece(DType::f32, {n}, {end}, dims);
      auto a = piece.forward();
      a.q = whole.q.rows(end - n, n);
      a.kv = whole.kv.view().rows(0, end);
      a.k_rope = whole.k_rope.rows(0, end);
      mla_forward(ctx, a);
      const Tensor o = whole.o.view().rows(end - n, n), lse = whole.lse.view().rows(end - n, n);
      if (GetParam() == Mode::reference) {
        expect_same_bits(a.o, o, "o");
        expect_same_bits(a.lse, lse, "lse");
      } else {
        expect_close(a.o, o, 32, "o");
        expect_close(a.lse, lse, 32, "lse");
      }
    }
  }
}

// The scaled score of query i with key j of document d, by hand: turned by their distance.
double score_of(const Problem& p, size_t d, int64_t i, int64_t j, int64_t h) {
  const auto [H, nope, rope, V, theta] = p.dims;
  const int32_t *cq = p.cu_q.view().as<int32_t>(), *ck = p.cu_k.view().as<int32_t>();
  const int64_t before = (ck[d + 1] - ck[d]) - (cq[d + 1] - cq[d]), width = nope + rope;
  const auto q = [&, at = ((cq[d] + i) * H + h) * width](int64_t c) {
    return test::element(p.q, at + c);
  };
  const auto shared = [&, at = (ck[d] + j) * rope](int64_t c) {
    return test::element(p.k_rope, at + c);
  };
  double score = 0;
  for (int64_t c = 0; c < nope; ++c)
    score += q(c) * test::element(p.kv.view(), ((ck[d] + j) * H + h) * (nope + V) + c);
  for (int64_t c = 0; c < rope; c += 2) {
    const double turn = theta > 0 ? std::pow(theta, -double(c) / double(rope)) : 0;
    const double angle = double(before + i - j) * turn, a = shared(c), b = shared(c + 1);
    const double q0 = q(nope + c), q1 = q(nope + c + 1);
    score += std::cos(angle) * (q0 * a + q1 * b) + std::sin(angle) * (q0 * b - q1 * a);
  }
  return score / std::sqrt(double(width));
}

TEST_P(Mla, MaxLogitIsTheLargestScoreSeen) {
  const test::CpuContext ctx(GetParam());
  const Lengths queries = {1, 0, 130, 3}, keys = {1, 5, 170, 70};
  for (const Dims& dims : {kNope, kRope, kNoShared, Dims{6, 4, 2, 3, 10}})
    for (const DType t : {DType::f32, DType::f64}) {
      const Problem p(t, queries, keys, dims);
      const Buffer max_logit(DType::f32, {dims.H});
      test::fill(max_logit.view(), -INFINITY);
      auto f = p.forward();
      f.max_logit = max_logit.view();
      mla_forward(ctx, f);
      for (int64_t h = 0; h < dims.H; ++h) {
        double want = -INFINITY;
        for (size_t d = 0; d < keys.size(); ++d)
          for (int64_t i = 0; i < queries[d]; ++i)
            for (int64_t j = 0; j <= keys[d] - queries[d] + i; ++j)
              want = std::max(want, score_of(p, d, i, j, h));
        // f32 products of at most 14 terms
        EXPECT_NEAR(test::element(max_logit.view(), h), want, 2e-6 * want) << h;
      }
      test::set_element(max_logit.view(), 0, 1e6);
      test::set_element(max_logit.view(), 1, -1e6);
      mla_forward(ctx, f);  // raised, never lowered
      EXPECT_EQ(test::element(max_logit.view(), 0), 1e6);
      EXPECT_GT(test::element(max_logit.view(), 1), 0);
    }
  // Below zero everywhere: what is masked does not count as zero.
  const Problem negative(DType::f32, {70, 3}, kNope);
  test::fill(negative.q, -1);
  test::fill(negative.kv.view(), 1);
  test::fill(negative.k_rope, 1);
  const Buffer below(DType::f32, {3});
  test::fill(below.view(), -INFINITY);
  auto g = negative.forward();
  g.max_logit = below.view();
  mla_forward(ctx, g);
  for (int64_t h = 0; h < 3; ++h)  // 14 products of -1, over sqrt(14)
    EXPECT_NEAR(test::element(below.view(), h), -std::sqrt(14.0), 1e-6);
  const Problem empty(DType::f32, {0, 0}, {3, 0}, kNope);
  const Buffer none(DType::f32, {3});
  test::fill(none.view(), -INFINITY);
  auto f = empty.forward();
  f.max_logit = none.view();
  mla_forward(ctx, f);
  EXPECT_EQ(test::element(none.view(), 0), -INFINITY);
}

TEST(MlaCpu, ThreadsChangeNoBit) {
  const Lengths lengths = {100, 0, 1, 1100, 3, 200};
  const Problem one(DType::f32, lengths, kRope);
  one.run(test::CpuContext(Mode::run, 1));
  for (int threads : {2, 3}) {
    const Problem many(DType::f32, lengths, kRope);
    many.run(test::CpuContext(Mode::run, threads));
    for (size_t i = 0; i < 5; ++i)
      expect_same_bits(many.outputs()[i], one.outputs()[i], "output " + std::to_string(i));
  }
}

TEST_P(Mla, GradientsAdd) {
  const test::CpuContext ctx(GetParam());
  const Problem written(DType::f64, {5, 0, 80}, kRope), added(DType::f64, {5, 0, 80}, kRope);
  written.run(ctx);
  mla_forward(ctx, added.forward());
  for (size_t i = 2; i < 5; ++i) test::fill(added.outputs()[i], 100);
  mla_backward(ctx, added.backward(true));
  for (size_t i = 2; i < 5; ++i)
    for (int64_t j = 0; j < written.outputs()[i].numel(); ++j)  // rounded at 100: 1e-14
      ASSERT_NEAR(test::element(added.outputs()[i], j),
                  100 + test::element(written.outputs()[i], j), 1e-12);
}

// No documents; documents without tokens; keys that no query sees have zero gradients.
TEST_P(Mla, NoRows) {
  const test::CpuContext ctx(GetParam());
  for (const Lengths& keys : {Lengths{}, Lengths{0, 0}, Lengths{3, 0, 70}}) {
    const Problem p(DType::f32, Lengths(keys.size(), 0), keys, kRope);
    p.run(ctx);
    for (const Tensor& t : {p.dkv.view(), p.dk_rope.view()})
      for (int64_t i = 0; i < t.numel(); ++i) ASSERT_EQ(test::element(t, i), 0);
  }
}

TEST(MlaContract, ErrorsNameTheValues) {
  const test::CpuContext ctx;
  const Problem p(DType::f32, {4, 3}, kNope), wrong(DType::f64, {4}, {1, 2, 1, 5, 0});
  const auto message = [&](auto change) -> std::string {
    auto forward = p.forward();
    auto backward = p.backward();
    change(forward, backward);
    try {
      mla_forward(ctx, forward);
      mla_backward(ctx, backward);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << " lacks " << part;
  };
  has(message([&](auto& f, auto&) { f.kv = wrong.kv.view(); }), "kv");
  has(message([&](auto& f, auto&) { f.q = p.o.view(); }), "no split into nope");  // rope < 0
  has(message([&](auto& f, auto&) { f.k_rope = wrong.k_rope; }), "k_rope is f64 [4, 1]");
  has(message([&](auto& f, auto&) { f.k_rope = {}; }), "k_rope is missing");
  has(message([&](auto& f, auto&) { f.lse = wrong.lse.view(); }), "lse is f64 [4, 1]");
  has(message([&](auto& f, auto&) { f.max_logit = wrong.lse.view(); }), "max_logit is f64 [4, 1]");
  has(message([&](auto& f, auto&) { f.rope_theta = 0.5; }), "rope_theta is 0.5");
  has(message([&](auto& f, auto&) { f.rope_theta = -1; }), "rope_theta is -1");
  has(message([&](auto& f, auto&) { f.cu_seqlens_q = wrong.cu_q.view(); }),
      "ends at 4, expected 7");
  has(message([&](auto& f, auto&) { f.cu_seqlens_k = wrong.cu_k.view(); }),
      "ends at 4, expected 7");
  has(message([&](auto&, auto& b) { b.d_o = wrong.d_o.view(); }), "d_o is f64");
  has(message([&](auto&, auto& b) { b.dq.t = {}; }), "dq is missing");
  has(message([&](auto&, auto& b) { b.dkv.t = wrong.dkv.view(); }), "dkv is f64");
  has(message([&](auto&, auto& b) { b.dk_rope.t = wrong.dk_rope.view(); }), "dk_rope is f64");
  const Problem more_queries(DType::f32, {4, 3}, {3, 4}, kNope);
  EXPECT_THROW(mla_forward(ctx, more_queries.forward()), Error);
  const Problem odd(DType::f32, {4}, {1, 4, 3, 2, 10});
  EXPECT_THROW(mla_forward(ctx, odd.forward()), Error);
}

TEST(MlaContract, PlanTakesWhatARunTakes) {
  for (const Dims& dims : {kRope, kNoShared}) {
    const Problem p(DType::f32, {100, 0, 33}, {150, 2, 33}, dims);
    test::CpuContext run;
    p.run(run);
    Arena plan = Arena::plan(Device::cpu);
    const Context ctx{.mode = Mode::plan, .arena = &plan};
    auto f = p.forward();
    auto b = p.backward();
    for (Tensor* t : {&f.q, &f.kv, &f.k_rope, &f.cu_seqlens_q, &f.cu_seqlens_k, &f.o, &f.lse, &b.q,
                      &b.kv, &b.k_rope, &b.cu_seqlens_q, &b.cu_seqlens_k, &b.o, &b.lse, &b.d_o,
                      &b.dq.t, &b.dkv.t, &b.dk_rope.t})
      t->data = nullptr;
    mla_forward(ctx, f);
    mla_backward(ctx, b);
    EXPECT_EQ(plan.peak(), run.arena.peak());
    EXPECT_EQ(run.arena.used(), 0);
  }
}

}  // namespace
}  // namespace sluice
