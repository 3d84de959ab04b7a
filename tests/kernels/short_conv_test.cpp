// tests/kernels/short_conv_test.cpp -- closed forms, gradients, packing, pieces, threads, contract.
#include "kernels/short_conv/short_conv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"

namespace sluice {
namespace {

using Lengths = std::vector<int64_t>;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// One problem, all tensors random, outputs NaN. x and dx are columns of something wider.
struct Problem {
  Problem(DType dtype, const Lengths& lengths, int64_t C, int64_t W)
      : N(std::accumulate(lengths.begin(), lengths.end(), int64_t(0))),
        documents(int64_t(lengths.size())),
        wide_x(dtype, {N, C + 5}),
        w(dtype, {C, W}),
        cu(DType::i32, {documents + 1}),
        initial(dtype, {documents, C, W - 1}),
        y(dtype, {N, C}),
        final(initial.view()),
        dy(dtype, {N, C}),
        dfinal(initial.view()),
        wide_dx(dtype, {N, C + 3}),
        dw(w.view()),
        dinitial(initial.view()),
        x(wide_x.view().columns(2, C)),
        dx(wide_dx.view().columns(1, C)) {
    for (int64_t d = 0; d < documents; ++d)
      cu.view().as<int32_t>()[d + 1] = cu.view().as<int32_t>()[d] + int32_t(lengths[size_t(d)]);
    uint64_t seed = 1;
    for (const Tensor& t : {wide_x.view(), w.view(), initial.view(), dy.view(), dfinal.view()})
      test::fill_normal(t, seed++);
    for (const Tensor& t : {y.view(), final.view(), wide_dx.view(), dw.view(), dinitial.view()})
      test::fill(t, kNan);
  }
  ShortConvForward forward() const {
    return {.x = x,
            .w = w.view(),
            .cu_seqlens = cu.view(),
            .initial_state = initial.view(),
            .y = y.view(),
            .final_state = final.view()};
  }
  ShortConvBackward backward(bool add = false) const {
    return {.x = x,
            .w = w.view(),
            .cu_seqlens = cu.view(),
            .initial_state = initial.view(),
            .dy = dy.view(),
            .dfinal_state = dfinal.view(),
            .dx = {dx, add},
            .dw = {dw.view(), add},
            .dinitial_state = {dinitial.view(), add}};
  }
  std::vector<Tensor> inputs() const {
    return {x, w.view(), initial.view(), dy.view(), dfinal.view()};
  }
  std::vector<Tensor> outputs() const {
    return {y.view(), final.view(), dx, dw.view(), dinitial.view()};
  }
  void run(const Context& ctx) const {
    short_conv_forward(ctx, forward());
    short_conv_backward(ctx, backward());
  }

  int64_t N, documents;
  Buffer wide_x, w, cu, initial, y, final, dy, dfinal, wide_dx, dw, dinitial;
  Tensor x, dx;
};

void copy_elements(const Tensor& from, const Tensor& to) {
  for (int64_t i = 0; i < from.numel(); ++i) test::set_element(to, i, test::element(from, i));
}
void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.numel(), b.numel()) << what;
  for (int64_t i = 0; i < a.numel(); ++i)
    ASSERT_EQ(test::element(a, i), test::element(b, i)) << what << ", element " << i;
}

class ShortConv : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, ShortConv, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

double silu(double z) {
  return z / (1 + std::exp(-z));
}

// A filter of a single 1 delays by W-1-j tokens; what is before the document comes from its state.
TEST_P(ShortConv, DeltaFiltersDelay) {
  const int64_t C = 70, W = 4;
  for (int64_t tap = 0; tap < W; ++tap) {
    const test::CpuContext ctx(GetParam());
    const Problem p(DType::f64, {6, 2, 0, 1}, C, W);
    test::fill(p.w.view(), 0);
    for (int64_t c = 0; c < C; ++c) p.w.view().row<double>(c)[tap] = 1;
    short_conv_forward(ctx, p.forward());
    const int32_t* cu = p.cu.view().as<int32_t>();
    for (int64_t d = 0; d < p.documents; ++d)
      for (int64_t n = cu[d]; n < cu[d + 1]; ++n)
        for (int64_t c = 0; c < C; ++c) {
          const int64_t from = n - cu[d] - (W - 1 - tap);  // position in the document
          const double z = from >= 0 ? p.x.row<double>(cu[d] + from)[c]
                                     : p.initial.view().row<double>(d)[c * (W - 1) + W - 1 + from];
          // A few roundings of f64: one exp, one division.
          EXPECT_NEAR(p.y.view().row<double>(n)[c], silu(z), 1e-14) << tap << " " << n << " " << c;
        }
  }
}

// Worked out by hand: W = 3, one channel, w = (2, 3, 5), state (7, 11), x = (1, -1).
TEST_P(ShortConv, WorkedExample) {
  const test::CpuContext ctx(GetParam());
  const Problem p(DType::f64, {2}, 1, 3);
  const double w[] = {2, 3, 5}, state[] = {7, 11}, x[] = {1, -1};
  for (int i = 0; i < 3; ++i) test::set_element(p.w.view(), i, w[i]);
  for (int i = 0; i < 2; ++i) test::set_element(p.initial.view(), i, state[i]);
  for (int i = 0; i < 2; ++i) test::set_element(p.x, i, x[i]);
  short_conv_forward(ctx, p.forward());
  EXPECT_NEAR(test::element(p.y.view(), 0), silu(2 * 7 + 3 * 11 + 5 * 1), 1e-13);
  EXPECT_NEAR(test::element(p.y.view(), 1), silu(2 * 11 + 3 * 1 - 5 * 1), 1e-13);
  EXPECT_EQ(test::element(p.final.view(), 0), 1);
  EXPECT_EQ(test::element(p.final.view(), 1), -1);
}

TEST_P(ShortConv, Gradients) {
  for (int64_t W : {1, 2, 4, 7, 8}) {
    const test::CpuContext ctx(GetParam());
    const Problem p(DType::f64, {5, 0, 1, 40, 3, 17, 0}, 67, W);
    p.run(ctx);
    const auto loss = [&] {
      short_conv_forward(ctx, p.forward());
      return test::dot(p.dy.view(), p.y.view()) + test::dot(p.dfinal.view(), p.final.view());
    };
    // Central differences in f64 are good to about 1e-9; a wrong term shows at 1e-2.
    EXPECT_LT(test::gradcheck(loss, p.x, p.dx, 11), 1e-6) << W;
    EXPECT_LT(test::gradcheck(loss, p.w.view(), p.dw.view(), 12), 1e-6) << W;
    if (W > 1) {
      EXPECT_LT(test::gradcheck(loss, p.initial.view(), p.dinitial.view(), 13), 1e-6) << W;
    }
  }
}

// Left out optionals: no state is a zero state.
TEST_P(ShortConv, NoStatesAreZeroStates) {
  const test::CpuContext ctx(GetParam());
  const Problem zeros(DType::f32, {9, 0, 2, 30}, 33, 4), none(DType::f32, {9, 0, 2, 30}, 33, 4);
  test::fill(zeros.initial.view(), 0);
  test::fill(zeros.dfinal.view(), 0);
  zeros.run(ctx);
  auto forward = none.forward();
  auto backward = none.backward();
  forward.initial_state = forward.final_state = backward.initial_state = {};
  backward.dfinal_state = backward.dinitial_state.t = {};
  short_conv_forward(ctx, forward);
  short_conv_backward(ctx, backward);
  expect_same_bits(none.y.view(), zeros.y.view(), "y");
  expect_same_bits(none.dx, zeros.dx, "dx");
  expect_same_bits(none.dw.view(), zeros.dw.view(), "dw");
}

TEST(ShortConvCpu, AgreesWithReferenceInF64) {
  for (int64_t W : {1, 3, 4, 8})
    for (int64_t C : {1, 64, 530}) {
      const test::CpuContext cpu(Mode::run), reference(Mode::reference);
      const Lengths lengths = {1, 0, 300, 2, 1200, 37};
      const Problem got(DType::f32, lengths, C, W), want(DType::f64, lengths, C, W);
      for (size_t i = 0; i < got.inputs().size(); ++i)
        copy_elements(got.inputs()[i], want.inputs()[i]);  // the rounded inputs
      got.run(cpu);
      want.run(reference);
      const char* name[] = {"y", "final", "dx", "dw", "dinitial"};
      // y, dx, dinitial: up to 8 products and sums, and exp, 1/x and three products after them. dw:
      // the partial sums of N random terms wander to sqrt(N), each rounded: sqrt(N) / 3 ulps, 13.
      const double ulps[] = {16, 0.5, 32, 64, 32};
      for (size_t i = 0; i < 5; ++i) {
        const auto e = test::compare(got.outputs()[i], want.outputs()[i], ulps[i]);
        EXPECT_LT(e.worst, 1) << name[i] << " W " << W << " C " << C << " " << e;
      }
    }
}

// exp(-z) of large |z|: the activation saturates without NaN.
TEST_P(ShortConv, LargeValues) {
  const test::CpuContext ctx(GetParam());
  for (double z : {-2000.0, -100.0, -88.5, 88.5, 100.0, 2000.0}) {
    const Problem p(DType::f32, {3}, 20, 1);
    test::fill(p.x, z);
    test::fill(p.w.view(), 1);
    p.run(ctx);
    for (int64_t i = 0; i < 60; ++i) {
      EXPECT_NEAR(test::element(p.y.view(), i), z > 0 ? z : 0, 1e-30);
      EXPECT_NEAR(test::element(p.dx, i), z > 0 ? test::element(p.dy.view(), i) : 0, 1e-30);
    }
  }
}

// A document alone gives the bits that it gives in the pack; dw alone mixes documents.
TEST_P(ShortConv, PackedEqualsSeparate) {
  const test::CpuContext ctx(GetParam());
  const Lengths lengths = {5, 0, 300, 1, 40};
  const Problem pack(DType::f32, lengths, 67, 4);
  pack.run(ctx);
  const int32_t* cu = pack.cu.view().as<int32_t>();
  for (int64_t d = 0; d < pack.documents; ++d) {
    const int64_t n = lengths[size_t(d)];
    const Problem one(DType::f32, {n}, 67, 4);
    copy_elements(pack.x.rows(cu[d], n), one.x);
    copy_elements(pack.dy.view().rows(cu[d], n), one.dy.view());
    copy_elements(pack.initial.view().rows(d, 1), one.initial.view());
    copy_elements(pack.dfinal.view().rows(d, 1), one.dfinal.view());
    one.run(ctx);
    expect_same_bits(one.y.view(), pack.y.view().rows(cu[d], n), "y");
    expect_same_bits(one.final.view(), pack.final.view().rows(d, 1), "final_state");
    expect_same_bits(one.dx, pack.dx.rows(cu[d], n), "dx");
    expect_same_bits(one.dinitial.view(), pack.dinitial.view().rows(d, 1), "dinitial_state");
  }
}

// The state written over itself from piece to piece, the pieces shorter than the filter too.
TEST_P(ShortConv, PiecesEqualWhole) {
  const test::CpuContext ctx(GetParam());
  for (int64_t W : {1, 4, 8}) {
    const Problem whole(DType::f32, {23}, 65, W);
    short_conv_forward(ctx, whole.forward());
    Buffer state(whole.initial.view());
    copy_elements(whole.initial.view(), state.view());
    int64_t begin = 0;
    for (int64_t n : {1, 2, 0, 5, 1, 1, 10, 3}) {
      const Problem piece(DType::f32, {n}, 65, W);
      auto a = piece.forward();
      a.x = whole.x.rows(begin, n);
      a.w = whole.w.view();
      a.initial_state = a.final_state = state.view();
      short_conv_forward(ctx, a);
      expect_same_bits(a.y, whole.y.view().rows(begin, n), "y");
      begin += n;
    }
    expect_same_bits(state.view(), whole.final.view(), "final_state");
  }
}

TEST(ShortConvCpu, ThreadsChangeNoBit) {
  const Lengths lengths = {100, 0, 1, 700, 3, 600};
  const Problem one(DType::f32, lengths, 200, 4);
  one.run(test::CpuContext(Mode::run, 1));
  for (int threads : {2, 3}) {
    const Problem many(DType::f32, lengths, 200, 4);
    many.run(test::CpuContext(Mode::run, threads));
    for (size_t i = 0; i < 5; ++i)
      expect_same_bits(many.outputs()[i], one.outputs()[i], "output " + std::to_string(i));
  }
}

TEST_P(ShortConv, GradientsAdd) {
  const test::CpuContext ctx(GetParam());
  const Problem written(DType::f64, {5, 0, 30}, 10, 4), added(DType::f64, {5, 0, 30}, 10, 4);
  short_conv_backward(ctx, written.backward());
  for (const Tensor& t : {added.dx, added.dw.view(), added.dinitial.view()}) test::fill(t, 100);
  short_conv_backward(ctx, added.backward(true));
  for (size_t i = 2; i < 5; ++i)
    for (int64_t j = 0; j < written.outputs()[i].numel(); ++j)  // rounded at 100: 1e-14
      ASSERT_NEAR(test::element(added.outputs()[i], j),
                  100 + test::element(written.outputs()[i], j), 1e-12);
}

TEST_P(ShortConv, NoRows) {
  const test::CpuContext ctx(GetParam());
  for (const Lengths& lengths : {Lengths{}, Lengths{0, 0, 0}}) {
    const Problem p(DType::f32, lengths, 67, 4);
    p.run(ctx);
    expect_same_bits(p.final.view(), p.initial.view(), "final_state");
    expect_same_bits(p.dinitial.view(), p.dfinal.view(), "dinitial_state");
    for (int64_t i = 0; i < p.dw.view().numel(); ++i) EXPECT_EQ(test::element(p.dw.view(), i), 0);
  }
}

// Nothing is written outside the columns of a strided dx.
TEST_P(ShortConv, LeavesItsNeighboursAlone) {
  const Problem p(DType::f32, {40, 3}, 64, 4);
  p.run(test::CpuContext(GetParam()));
  for (int64_t n = 0; n < p.N; ++n)
    for (int64_t c : {0, 65, 66}) EXPECT_TRUE(std::isnan(p.wide_dx.view().row<float>(n)[c]));
}

TEST(ShortConvContract, ErrorsNameTheValues) {
  const test::CpuContext ctx;
  const Problem p(DType::f32, {4, 3}, 8, 4), wrong(DType::f64, {4}, 6, 3),
      wide(DType::f32, {7}, 8, 9);
  const auto message = [&](auto change) -> std::string {
    auto forward = p.forward();
    auto backward = p.backward();
    change(forward, backward);
    try {
      short_conv_forward(ctx, forward);
      short_conv_backward(ctx, backward);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << " lacks " << part;
  };
  has(message([&](auto& f, auto&) { f.w = wrong.w.view(); }), "w is f64 [6, 3]");
  has(message([&](auto& f, auto&) { f.w = wide.w.view(); }), "width is 9");
  has(message([&](auto& f, auto&) { f.y = wrong.y.view(); }), "y is f64 [4, 6]");
  has(message([&](auto& f, auto&) { f.y = {}; }), "y is missing");
  has(message([&](auto& f, auto&) { f.cu_seqlens = wrong.cu.view(); }), "ends at 4, expected 7");
  has(message([&](auto& f, auto&) { f.initial_state = wrong.initial.view(); }),
      "initial_state is f64");
  has(message([&](auto& f, auto&) { f.final_state = wrong.final.view(); }), "final_state is f64");
  has(message([&](auto&, auto& b) { b.dy = wrong.dy.view(); }), "dy is f64");
  has(message([&](auto&, auto& b) { b.dx.t = wrong.dx; }), "dx is f64");
  has(message([&](auto&, auto& b) { b.dw.t = {}; }), "dw is missing");
  has(message([&](auto&, auto& b) { b.dfinal_state = wrong.dfinal.view(); }),
      "dfinal_state is f64");
  has(message([&](auto&, auto& b) { b.dinitial_state.t = wrong.initial.view(); }),
      "dinitial_state");
}

TEST(ShortConvContract, PlanTakesWhatARunTakes) {
  const Problem p(DType::f32, {400, 0, 33}, 200, 4);
  test::CpuContext run;
  p.run(run);
  Arena plan = Arena::plan(Device::cpu);
  const Context ctx{.mode = Mode::plan, .arena = &plan};
  auto forward = p.forward();
  auto backward = p.backward();
  for (Tensor* t : {&forward.x, &forward.w, &forward.cu_seqlens, &forward.initial_state, &forward.y,
                    &forward.final_state, &backward.x, &backward.w, &backward.cu_seqlens,
                    &backward.initial_state, &backward.dy, &backward.dfinal_state, &backward.dx.t,
                    &backward.dw.t, &backward.dinitial_state.t})
    t->data = nullptr;
  short_conv_forward(ctx, forward);
  short_conv_backward(ctx, backward);
  EXPECT_EQ(plan.peak(), run.arena.peak());
  EXPECT_EQ(run.arena.used(), 0);
}

}  // namespace
}  // namespace sluice
