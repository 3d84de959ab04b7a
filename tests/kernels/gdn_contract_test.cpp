// tests/kernels/gdn_contract_test.cpp -- what holds beside the numbers: pieces, threads, memory,
// errors.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/gdn_problem.h"

namespace sluice::test {
namespace {

const GdnParams kMamba{false, 1};

std::vector<GdnParams> both_rules() {
  return {{}, kMamba};
}

void expect_message(const std::function<void()>& call, const std::string& part) {
  try {
    call();
    FAIL() << "no error with \"" << part << "\"";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

// One document in pieces, the state handed over in place, gives what one call gives.
void expect_pieces_agree(const GdnParams& params, Mode mode, DType type, double ulps) {
  CpuContext cpu(mode);
  GdnProblem p({.H = 2, .HV = 4, .K = 24, .V = 20, .cu = {0, 200}, .params = params}, type);
  gdn_forward(cpu, p.forward_args());
  const Buffer o(p.o.view()), state(p.s0.view());
  const Buffer cu(DType::i32, {2});
  copy(p.s0.view(), state.view());
  int64_t at = 0;
  for (const int64_t piece : {1, 1, 15, 16, 64, 0, 65, 37, 1}) {
    GdnForward a = p.forward_args();
    for (Tensor* t : {&a.q, &a.k, &a.v, &a.g, &a.beta})
      if (*t) *t = t->rows(at, piece);
    a.o = o.view().rows(at, piece);
    cu.view().as<int32_t>()[1] = int32_t(piece);
    a.cu_seqlens = cu.view();
    a.initial_state = a.final_state = state.view();
    gdn_forward(cpu, a);
    at += piece;
  }
  ASSERT_EQ(at, 200);
  for (const auto& [got, want] :
       {std::pair{o.view(), p.o.view()}, std::pair{state.view(), p.s1.view()}}) {
    const ErrorStats e = compare(got, want, ulps);
    EXPECT_LE(e.worst, 1) << e;
  }
}

TEST(Gdn, PiecesAgreeWithOneCall) {
  // Reference: the state is rounded to T between pieces, half an ulp a time. Chunked: chunks lie
  // elsewhere, so sums of up to 64 terms come in another order.
  for (const GdnParams& params : both_rules()) {
    expect_pieces_agree(params, Mode::reference, DType::f64, 16);
    expect_pieces_agree(params, Mode::run, DType::f64, 200);
    expect_pieces_agree(params, Mode::run, DType::f32, 200);
  }
}

TEST(Gdn, PackedAgreesWithSeparate) {
  CpuContext cpu;
  for (const GdnParams& params : both_rules()) {
    GdnProblem packed(
        {.H = 1, .HV = 2, .K = 8, .V = 12, .cu = {0, 70, 70, 75, 205}, .params = params});
    packed.run(cpu);
    for (int64_t doc = 0; doc < 4; ++doc) {
      const int32_t begin = packed.shape.cu[size_t(doc)];
      GdnShape one = packed.shape;
      one.cu = {0, packed.shape.cu[size_t(doc) + 1] - begin};
      GdnProblem alone(one);
      const auto all = packed.inputs(), mine = alone.inputs();
      for (size_t i = 0; i < all.size(); ++i) {
        const bool parameter = all[i].first == "A_log" || all[i].first == "dt_bias";
        const bool state = all[i].second.rank == 4;
        copy(parameter ? all[i].second
                       : all[i].second.rows(state ? doc : begin, state ? 1 : one.N()),
             mine[i].second);
      }
      alone.run(cpu);
      const auto got = packed.results(), want = alone.results();
      for (size_t i = 0; i < got.size(); ++i) {
        if (got[i].first == "dA_log" || got[i].first == "ddt_bias")
          continue;  // sums over documents
        const bool state = got[i].second.rank == 4;
        const Tensor part = got[i].second.rows(state ? doc : begin, state ? 1 : one.N());
        // 0 would do if GEMMs took no notice of where memory lies and how far apart rows are.
        EXPECT_LE(compare(part, want[i].second, 20).worst, 1) << got[i].first << " of " << doc;
      }
    }
  }
}

TEST(Gdn, ThreadsAndRepetitionChangeNoBit) {
  for (const GdnParams& params : both_rules()) {
    const GdnShape shape{
        .H = 2, .HV = 4, .K = 24, .V = 20, .cu = {0, 5, 70, 70, 200, 330}, .params = params};
    GdnProblem one(shape, DType::f32);
    one.run(CpuContext(Mode::run, 1));
    for (const int threads : {1, 2, 3}) {
      GdnProblem more(shape, DType::f32);
      more.run(CpuContext(Mode::run, threads));
      const auto a = one.results(), b = more.results();
      for (size_t i = 0; i < a.size(); ++i)
        EXPECT_TRUE(same_bits(a[i].second, b[i].second)) << a[i].first;
    }
  }
}

// Rows of a fused projection; gradients that are added to; memory around and between left alone.
void expect_strides_and_adding(const GdnParams& params, Mode mode) {
  CpuContext cpu(mode);
  GdnProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = params});
  p.run(cpu);
  const int64_t N = 100, wide = 200;
  const Buffer in(DType::f64, {N, wide}), out(DType::f64, {N, wide});
  fill(in.view(), NAN);
  fill(out.view(), 7);
  GdnForward f = p.forward_args();
  GdnBackward b = p.backward_args();
  int64_t at = 1;
  std::vector<std::pair<Tensor*, Grad*>> rows{
      {&f.q, &b.dq}, {&f.k, &b.dk}, {&f.v, &b.dv}, {&f.g, &b.dg}};
  if (params.delta_rule) rows.push_back({&f.beta, &b.dbeta});
  for (const auto& [input, grad] : rows) {
    const Tensor dense = *input;
    const int64_t width = dense.numel() / N;
    auto view = [&](const Buffer& from) {
      const Tensor t = from.view().columns(at, width);
      return dense.rank == 3 ? t.reshape({N, dense.dim(1), dense.dim(2)}) : t;
    };
    *input = view(in);
    for (int64_t e = 0; e < dense.numel(); ++e) set_element(*input, e, element(dense, e));
    *grad = {view(out), true};
    at += width + 1;
  }
  p.allocate_saved(cpu);
  f.saved = b.saved = p.saved.view();
  gdn_forward(cpu, f);
  b.q = f.q, b.k = f.k, b.v = f.v, b.g = f.g, b.beta = f.beta;
  const Buffer dA(p.A_log.view()), dbias(p.dt_bias.view()), ds0(p.s0.view());
  for (const Buffer* t : {&dA, &dbias, &ds0}) fill(t->view(), 7);
  b.dA_log = {dA.view(), true}, b.ddt_bias = {dbias.view(), true};
  b.dinitial_state = {ds0.view(), true};
  gdn_backward(cpu, b);
  std::vector<Tensor> got{b.dq.t, b.dk.t, b.dv.t, b.dg.t, dA.view(), dbias.view(), ds0.view()};
  if (params.delta_rule) got.push_back(b.dbeta.t);
  const auto want = p.gradients();
  int64_t written = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i].dim(0) == N) written += got[i].numel();
    for (int64_t e = 0; e < got[i].numel(); ++e) {  // 1e-10: GEMM kernels differ with the stride
      const double w = element(want[i].second, e);
      ASSERT_NEAR(element(got[i], e), 7 + w, 1e-10 * (1 + std::abs(w)))
          << want[i].first << " " << e;
    }
  }
  int64_t untouched = 0;
  for (int64_t e = 0; e < N * wide; ++e) untouched += element(out.view(), e) == 7;
  EXPECT_GE(untouched, N * wide - written);
}

TEST(Gdn, StridedRowsAndAddedGradients) {
  for (const GdnParams& params : both_rules())
    for (const Mode mode : {Mode::run, Mode::reference}) expect_strides_and_adding(params, mode);
}

TEST(Gdn, NoRows) {
  for (const Mode mode : {Mode::run, Mode::reference})
    for (const std::vector<int32_t>& cu :
         {std::vector<int32_t>{0, 0, 0}, std::vector<int32_t>{0}}) {
      CpuContext cpu(mode);
      GdnProblem p({.H = 1, .HV = 2, .K = 4, .V = 3, .cu = cu, .params = {}});
      p.run(cpu);
      EXPECT_TRUE(same_bits(p.s1.view(), p.s0.view()));
      EXPECT_TRUE(same_bits(p.ds0.view(), p.ds1.view()));
      for (const Tensor& t : {p.dA_log.view(), p.ddt_bias.view()})
        for (int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(element(t, i), 0);
    }
}

TEST(Gdn, EmptyDocumentWithoutInitialStateEndsAtZero) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    CpuContext cpu(mode);
    GdnProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 3, 3}, .params = {}});
    GdnForward a = p.forward_args();
    a.initial_state = {};
    gdn_forward(cpu, a);
    for (int64_t i = 12; i < 24; ++i) EXPECT_EQ(element(p.s1.view(), i), 0);
  }
}

// A gate that is -infinity, and logits far out: no result is NaN.
TEST(Gdn, InfiniteLogitsStayFinite) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    GdnProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 90}, .params = {}}, DType::f32);
    for (int64_t i = 0; i < 90; i += 3) set_element(p.g.view(), i, i % 2 ? INFINITY : -INFINITY);
    p.run(CpuContext(mode));
    for (const auto& [name, t] : p.results())
      for (int64_t i = 0; i < t.numel(); ++i) ASSERT_TRUE(std::isfinite(element(t, i))) << name;
  }
}

// Exactly 0, not rounding, where a token forgets everything: its own gate has no effect.
TEST(Gdn, TheGateOfTotalForgettingHasNoGradient) {
  for (const GdnParams& params : both_rules()) {
    GdnProblem p({.H = 1, .HV = 1, .K = 8, .V = 6, .cu = {0, 100}, .params = params}, DType::f32);
    p.decay([](int64_t n, int64_t) { return n % 10 == 5 ? -1000 : -0.1; });
    fill(p.dbeta.view(), 0);
    p.run(CpuContext());
    for (int64_t n = 5; n < 100 && params.delta_rule; n += 10)
      EXPECT_EQ(element(p.dg.view(), n), 0) << n;
    EXPECT_TRUE(std::isfinite(element(p.dA_log.view(), 0)));
  }
}

TEST(Gdn, PlanTakesTheMemoryThatRunTakes) {
  GdnProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
  Arena plan = Arena::plan(Device::cpu);
  const Context planning{.mode = Mode::plan, .arena = &plan};
  GdnForward f = p.forward_args();
  f.saved = make_tensor(nullptr, DType::u8, Device::cpu, {gdn_saved_bytes(planning, f)});
  GdnBackward b = p.backward_args();
  b.saved = f.saved;
  b.q.data = b.cu_seqlens.data = f.o.data = nullptr;
  gdn_forward(planning, f);
  gdn_backward(planning, b);
  CpuContext cpu;
  EXPECT_EQ(f.saved.numel(), gdn_saved_bytes(cpu, f));
  p.run(cpu);
  EXPECT_EQ(plan.peak(), cpu.arena.peak());
  EXPECT_EQ(cpu.arena.used(), 0);
}

TEST(Gdn, BrokenContractsNameTheValues) {
  CpuContext cpu;
  GdnProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
  auto forward = [&](const std::function<void(GdnForward&)>& change) {
    return [&p, &cpu, change] {
      GdnForward a = p.forward_args();
      change(a);
      gdn_forward(cpu, a);
    };
  };
  expect_message(forward([](GdnForward& a) { a.k = a.k.rows(0, 99); }), "k is f64 [99, 2, 8]");
  expect_message(forward([&](GdnForward& a) { a.v = p.q.view(); }), "g is f64 [100, 4]");
  expect_message(forward([](GdnForward& a) { a.dt_bias = a.dt_bias.rows(0, 3); }), "dt_bias is");
  expect_message(forward([](GdnForward& a) { a.initial_state = a.initial_state.rows(0, 1); }),
                 "initial_state is f64 [1, 4, 8, 6]");
  expect_message(forward([](GdnForward& a) { a.params.beta_max = 3; }), "beta_max is 3");
  expect_message(forward([](GdnForward& a) { a.params.delta_rule = false; }),
                 "beta is f64 [100, 4] on cpu without the delta rule");
  expect_message(forward([](GdnForward& a) {
                   a.params = {false, 2};
                 }),
                 "beta_max is 2 without the delta rule");
  expect_message(
      forward([&](GdnForward& a) { a.saved = make_tensor(a.o.data, DType::u8, Device::cpu, {5}); }),
      "saved is u8 [5]");
  GdnProblem odd({.H = 2, .HV = 3, .K = 8, .V = 6, .cu = {0, 3}, .params = {}});
  expect_message([&] { odd.forward(cpu); }, "value heads 3 are no multiple of heads 2");
  p.cu.view().as<int32_t>()[2] = 99;
  expect_message(forward([](GdnForward&) {}), "ends at 99, expected 100");
  p.cu.view().as<int32_t>()[2] = 100;
  expect_message(
      [&] {
        p.allocate_saved(cpu);
        GdnBackward b = p.backward_args();
        b.ddt_bias.t = p.A_log.view().rows(0, 3);
        gdn_backward(cpu, b);
      },
      "ddt_bias is f64 [3]");
}

}  // namespace
}  // namespace sluice::test
