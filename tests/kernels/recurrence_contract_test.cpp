// tests/kernels/recurrence_contract_test.cpp -- what holds beside the numbers, of KDA, GDN and
// Mamba2 alike: pieces, threads, memory.
#include <gtest/gtest.h>

#include "tests/kernels/gdn_problem.h"
#include "tests/kernels/kda_problem.h"

namespace sluice::test {
namespace {

struct KdaSoftplus {
  using Op = KdaOp;
  static KdaParams params() { return {}; }
};
struct KdaBounded {
  using Op = KdaOp;
  static KdaParams params() { return {GateLaw::bounded, -5, 1}; }
};
struct Gdn {
  using Op = GdnOp;
  static GdnParams params() { return {}; }
};
struct Mamba2 {
  using Op = GdnOp;
  static GdnParams params() { return {false, 1}; }
};

template <class Rule>
class Recurrence : public ::testing::Test {
 public:
  using Op = typename Rule::Op;
  using Shape = RecurrenceShape<Op>;
  using Problem = RecurrenceProblem<Op>;
  using Forward = typename Op::Forward;
  using Backward = typename Op::Backward;

  static void expect_pieces_agree(Mode mode, DType type, double ulps);
  static void expect_strides_and_adding(Mode mode);
};

struct RuleNames {
  template <class Rule>
  static std::string GetName(int) {
    if (std::is_same_v<Rule, KdaSoftplus>) return "KdaSoftplus";
    if (std::is_same_v<Rule, KdaBounded>) return "KdaBounded";
    return std::is_same_v<Rule, Gdn> ? "Gdn" : "Mamba2";
  }
};
using Rules = ::testing::Types<KdaSoftplus, KdaBounded, Gdn, Mamba2>;
TYPED_TEST_SUITE(Recurrence, Rules, RuleNames);

// One document in pieces, the state handed over in place, gives what one call gives.
template <class Rule>
void Recurrence<Rule>::expect_pieces_agree(Mode mode, DType type, double ulps) {
  CpuContext cpu(mode);
  Problem p({.H = 2, .HV = 4, .K = 24, .V = 20, .cu = {0, 200}, .params = Rule::params()}, type);
  Op::forward(cpu, p.forward_args());
  const Buffer o(p.o.view()), state(p.s0.view());
  const Buffer cu(DType::i32, {2});
  copy(p.s0.view(), state.view());
  int64_t at = 0;
  for (const int64_t piece : {1, 1, 15, 16, 64, 0, 65, 37, 1}) {
    Forward a = p.forward_args();
    for (Tensor* t : {&a.q, &a.k, &a.v, &a.g, &a.beta})
      if (*t) *t = t->rows(at, piece);
    a.o = o.view().rows(at, piece);
    cu.view().as<int32_t>()[1] = int32_t(piece);
    a.cu_seqlens = cu.view();
    a.initial_state = a.final_state = state.view();
    Op::forward(cpu, a);
    at += piece;
  }
  ASSERT_EQ(at, 200);
  for (const auto& [got, want] :
       {std::pair{o.view(), p.o.view()}, std::pair{state.view(), p.s1.view()}}) {
    const ErrorStats e = compare(got, want, ulps);
    EXPECT_LE(e.worst, 1) << e;
  }
}

TYPED_TEST(Recurrence, PiecesAgreeWithOneCall) {
  // Reference: the state is rounded to T between pieces, half an ulp a time. Chunked: chunks lie
  // elsewhere, so sums of up to 64 terms come in another order.
  TestFixture::expect_pieces_agree(Mode::reference, DType::f64, 16);
  TestFixture::expect_pieces_agree(Mode::run, DType::f64, 200);
  TestFixture::expect_pieces_agree(Mode::run, DType::f32, 200);
}

// Each piece's backward, from the last to the first, hands over the gradient of its initial state.
TYPED_TEST(Recurrence, PiecesOfBackwardAgreeWithOneCall) {
  CpuContext cpu;
  typename TestFixture::Problem all(
      {.H = 1, .HV = 2, .K = 16, .V = 12, .cu = {0, 150}, .params = TypeParam::params()});
  all.run(cpu);
  typename TestFixture::Shape shapes[2] = {all.shape, all.shape};
  shapes[0].cu = {0, 83};
  shapes[1].cu = {0, 67};
  typename TestFixture::Problem first(shapes[0]), second(shapes[1]);
  for (typename TestFixture::Problem* p : {&first, &second}) {
    const auto from = all.inputs(), to = p->inputs();
    for (size_t i = 0; i < to.size(); ++i)
      copy(from[i].second.dim(0) == 150 ? from[i].second.rows(p == &first ? 0 : 83, p->shape.N())
                                        : from[i].second,
           to[i].second);
  }
  first.forward(cpu);
  copy(first.s1.view(), second.s0.view());
  second.run(cpu);
  copy(second.ds0.view(), first.ds1.view());
  TestFixture::Op::backward(cpu, first.backward_args());
  const auto got1 = first.gradients(), got2 = second.gradients(), want = all.gradients();
  for (size_t i = 0; i < want.size(); ++i) {
    if (want[i].second.dim(0) == 150) {
      // 2000: as in PiecesAgreeWithOneCall, and dg is a sum of up to 64 terms that cancel.
      EXPECT_LE(compare(got1[i].second, want[i].second.rows(0, 83), 2000).worst, 1)
          << want[i].first;
      EXPECT_LE(compare(got2[i].second, want[i].second.rows(83, 67), 2000).worst, 1)
          << want[i].first;
    } else if (want[i].first == "dinitial_state") {
      EXPECT_LE(compare(got1[i].second, want[i].second, 2000).worst, 1);
    }
  }
}

TYPED_TEST(Recurrence, PackedAgreesWithSeparate) {
  CpuContext cpu;
  for (const DType type : {DType::f32, DType::f64}) {
    typename TestFixture::Problem packed({.H = 1,
                                          .HV = 2,
                                          .K = 8,
                                          .V = 12,
                                          .cu = {0, 70, 70, 75, 205},
                                          .params = TypeParam::params()},
                                         type);
    packed.run(cpu);
    for (int64_t doc = 0; doc < 4; ++doc) {
      const int32_t begin = packed.shape.cu[size_t(doc)];
      typename TestFixture::Shape one = packed.shape;
      one.cu = {0, packed.shape.cu[size_t(doc) + 1] - begin};
      typename TestFixture::Problem alone(one, type);
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

TYPED_TEST(Recurrence, ThreadsAndRepetitionChangeNoBit) {
  const typename TestFixture::Shape shape{.H = 2,
                                          .HV = 4,
                                          .K = 24,
                                          .V = 20,
                                          .cu = {0, 5, 70, 70, 200, 330},
                                          .params = TypeParam::params()};
  typename TestFixture::Problem one(shape, DType::f32);
  one.run(CpuContext(Mode::run, 1));
  for (const int threads : {1, 2, 3}) {
    typename TestFixture::Problem more(shape, DType::f32);
    more.run(CpuContext(Mode::run, threads));
    const auto a = one.results(), b = more.results();
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_TRUE(same_bits(a[i].second, b[i].second)) << a[i].first;
  }
}

// Rows of a fused projection; gradients that are added to; memory around and between left alone.
template <class Rule>
void Recurrence<Rule>::expect_strides_and_adding(Mode mode) {
  CpuContext cpu(mode);
  Problem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = Rule::params()});
  p.run(cpu);
  const int64_t N = 100, wide = 200;
  const Buffer in(DType::f64, {N, wide}), out(DType::f64, {N, wide});
  fill(in.view(), NAN);
  fill(out.view(), 7);
  Forward f = p.forward_args();
  Backward b = p.backward_args();
  int64_t at = 1;
  std::vector<std::pair<Tensor*, Grad*>> rows{
      {&f.q, &b.dq}, {&f.k, &b.dk}, {&f.v, &b.dv}, {&f.g, &b.dg}};
  if (p.has_beta()) rows.push_back({&f.beta, &b.dbeta});
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
  Op::forward(cpu, f);
  b.q = f.q, b.k = f.k, b.v = f.v, b.g = f.g, b.beta = f.beta;
  const Buffer dA(p.A_log.view()), dbias(p.dt_bias.view()), ds0(p.s0.view());
  for (const Buffer* t : {&dA, &dbias, &ds0}) fill(t->view(), 7);
  b.dA_log = {dA.view(), true}, b.ddt_bias = {dbias.view(), true};
  b.dinitial_state = {ds0.view(), true};
  Op::backward(cpu, b);
  std::vector<Tensor> got;
  for (const auto& [input, grad] : rows) got.push_back(grad->t);
  for (const Buffer* t : {&dA, &dbias, &ds0}) got.push_back(t->view());
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

TYPED_TEST(Recurrence, StridedRowsAndAddedGradients) {
  for (const Mode mode : {Mode::run, Mode::reference}) TestFixture::expect_strides_and_adding(mode);
}

TYPED_TEST(Recurrence, NoRows) {
  for (const Mode mode : {Mode::run, Mode::reference})
    for (const std::vector<int32_t>& cu :
         {std::vector<int32_t>{0, 0, 0}, std::vector<int32_t>{0}}) {
      CpuContext cpu(mode);
      typename TestFixture::Problem p(
          {.H = 1, .HV = 2, .K = 4, .V = 3, .cu = cu, .params = TypeParam::params()});
      p.run(cpu);
      EXPECT_TRUE(same_bits(p.s1.view(), p.s0.view()));
      EXPECT_TRUE(same_bits(p.ds0.view(), p.ds1.view()));
      for (const Tensor& t : {p.dA_log.view(), p.ddt_bias.view()})
        for (int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(element(t, i), 0);
    }
}

TYPED_TEST(Recurrence, EmptyDocumentWithoutInitialStateEndsAtZero) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    CpuContext cpu(mode);
    typename TestFixture::Problem p(
        {.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 3, 3}, .params = TypeParam::params()});
    typename TestFixture::Forward a = p.forward_args();
    a.initial_state = {};
    TestFixture::Op::forward(cpu, a);
    for (int64_t i = 12; i < 24; ++i) EXPECT_EQ(element(p.s1.view(), i), 0);
  }
}

// Gates that are -infinity, and logits far out: no result is NaN. (Mamba2 writes as much as its
// logit says: there +infinity is no number to survive.)
TYPED_TEST(Recurrence, InfiniteLogitsStayFinite) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    typename TestFixture::Problem p(
        {.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 90}, .params = TypeParam::params()},
        DType::f32);
    for (int64_t i = 0; i < p.g.view().numel(); i += 3)
      set_element(p.g.view(), i, i % 2 && p.has_beta() ? INFINITY : -INFINITY);
    p.run(CpuContext(mode));
    for (const auto& [name, t] : p.results())
      for (int64_t i = 0; i < t.numel(); ++i) ASSERT_TRUE(std::isfinite(element(t, i))) << name;
  }
}

TYPED_TEST(Recurrence, PlanTakesTheMemoryThatRunTakes) {
  typename TestFixture::Problem p(
      {.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = TypeParam::params()});
  Arena plan = Arena::plan(Device::cpu);
  const Context planning{.mode = Mode::plan, .arena = &plan};
  typename TestFixture::Forward f = p.forward_args();
  f.saved =
      make_tensor(nullptr, DType::u8, Device::cpu, {TestFixture::Op::saved_bytes(planning, f)});
  typename TestFixture::Backward b = p.backward_args();
  b.saved = f.saved;
  b.q.data = b.cu_seqlens.data = f.o.data = nullptr;
  TestFixture::Op::forward(planning, f);
  TestFixture::Op::backward(planning, b);
  CpuContext cpu;
  EXPECT_EQ(f.saved.numel(), TestFixture::Op::saved_bytes(cpu, f));
  p.run(cpu);
  EXPECT_EQ(plan.peak(), cpu.arena.peak());
  EXPECT_EQ(cpu.arena.used(), 0);
}

}  // namespace
}  // namespace sluice::test
