// tests/kernels/kda_contract_test.cpp -- what holds beside the numbers: pieces, threads, memory,
// errors.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/kda_problem.h"

namespace sluice::test {
namespace {

const KdaParams kBounded{GateLaw::bounded, -5, 1};

void expect_message(const std::function<void()>& call, const std::string& part) {
  try {
    call();
    FAIL() << "no error with \"" << part << "\"";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

// One document in pieces, the state handed over in place, gives what one call gives.
void expect_pieces_agree(Mode mode, DType type, double ulps) {
  CpuContext cpu(mode);
  KdaProblem p({.H = 2, .HV = 4, .K = 24, .V = 20, .cu = {0, 200}, .params = kBounded}, type);
  kda_forward(cpu, p.forward_args());
  const Buffer o(p.o.view()), state(p.s0.view());
  const Buffer cu(DType::i32, {2});
  copy(p.s0.view(), state.view());
  int64_t at = 0;
  for (const int64_t piece : {1, 1, 15, 16, 64, 0, 65, 37, 1}) {
    KdaForward a = p.forward_args();
    for (Tensor* t : {&a.q, &a.k, &a.v, &a.g, &a.beta}) *t = t->rows(at, piece);
    a.o = o.view().rows(at, piece);
    cu.view().as<int32_t>()[1] = int32_t(piece);
    a.cu_seqlens = cu.view();
    a.initial_state = a.final_state = state.view();
    kda_forward(cpu, a);
    at += piece;
  }
  ASSERT_EQ(at, 200);
  for (const auto& [got, want] :
       {std::pair{o.view(), p.o.view()}, std::pair{state.view(), p.s1.view()}}) {
    const ErrorStats e = compare(got, want, ulps);
    EXPECT_LE(e.worst, 1) << e;
  }
}

TEST(Kda, PiecesAgreeWithOneCall) {
  // Reference: the state is rounded to T between pieces, half an ulp a time. Chunked: chunks lie
  // elsewhere, so sums of up to 64 terms come in another order.
  expect_pieces_agree(Mode::reference, DType::f64, 16);
  expect_pieces_agree(Mode::run, DType::f64, 200);
  expect_pieces_agree(Mode::run, DType::f32, 200);
}

// Each piece's backward, from the last to the first, hands over the gradient of its initial state.
TEST(Kda, PiecesOfBackwardAgreeWithOneCall) {
  CpuContext cpu;
  KdaProblem all({.H = 1, .HV = 2, .K = 16, .V = 12, .cu = {0, 150}, .params = kBounded});
  all.run(cpu);
  KdaShape shapes[2] = {all.shape, all.shape};
  shapes[0].cu = {0, 83};
  shapes[1].cu = {0, 67};
  KdaProblem first(shapes[0]), second(shapes[1]);
  for (KdaProblem* p : {&first, &second}) {
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
  kda_backward(cpu, first.backward_args());
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

TEST(Kda, PackedAgreesWithSeparate) {
  CpuContext cpu;
  for (const DType type : {DType::f32, DType::f64}) {
    KdaProblem packed({.H = 1, .HV = 2, .K = 8, .V = 12, .cu = {0, 70, 70, 75, 205}, .params = {}},
                      type);
    packed.run(cpu);
    for (int64_t doc = 0; doc < 4; ++doc) {
      const int32_t begin = packed.shape.cu[size_t(doc)];
      KdaShape one = packed.shape;
      one.cu = {0, packed.shape.cu[size_t(doc) + 1] - begin};
      KdaProblem alone(one, type);
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

TEST(Kda, ThreadsAndRepetitionChangeNoBit) {
  const KdaShape shape{
      .H = 2, .HV = 4, .K = 24, .V = 20, .cu = {0, 5, 70, 70, 200, 330}, .params = {}};
  KdaProblem one(shape, DType::f32);
  one.run(CpuContext(Mode::run, 1));
  for (const int threads : {1, 2, 3}) {
    KdaProblem more(shape, DType::f32);
    more.run(CpuContext(Mode::run, threads));
    const auto a = one.results(), b = more.results();
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_TRUE(same_bits(a[i].second, b[i].second)) << a[i].first;
  }
}

// Rows of a fused projection; gradients that are added to; memory around and between left alone.
TEST(Kda, StridedRowsAndAddedGradients) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    CpuContext cpu(mode);
    KdaProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
    p.run(cpu);
    const int64_t N = 100, wide = 200;
    const Buffer in(DType::f64, {N, wide}), out(DType::f64, {N, wide});
    fill(in.view(), NAN);
    fill(out.view(), 7);
    KdaForward f = p.forward_args();
    KdaBackward b = p.backward_args();
    int64_t at = 1;
    Tensor* inputs[] = {&f.q, &f.k, &f.v, &f.g, &f.beta};
    Grad* grads[] = {&b.dq, &b.dk, &b.dv, &b.dg, &b.dbeta};
    Tensor added[5];
    for (int i = 0; i < 5; ++i) {
      const Tensor dense = *inputs[i];
      const int64_t width = dense.numel() / N;
      auto view = [&](const Buffer& from) {
        const Tensor t = from.view().columns(at, width);
        return dense.rank == 3 ? t.reshape({N, dense.dim(1), dense.dim(2)}) : t;
      };
      *inputs[i] = view(in);
      for (int64_t e = 0; e < dense.numel(); ++e) set_element(*inputs[i], e, element(dense, e));
      added[i] = view(out);
      at += width + 1;
    }
    p.allocate_saved(cpu);
    f.saved = b.saved = p.saved.view();
    kda_forward(cpu, f);
    b.q = f.q, b.k = f.k, b.v = f.v, b.g = f.g, b.beta = f.beta;
    const auto want = p.gradients();
    const Buffer dA(p.A_log.view()), dbias(p.dt_bias.view()), ds0(p.s0.view());
    for (const Buffer* t : {&dA, &dbias, &ds0}) fill(t->view(), 7);
    for (int i = 0; i < 5; ++i) *grads[i] = {added[i], true};
    b.dA_log = {dA.view(), true}, b.ddt_bias = {dbias.view(), true};
    b.dinitial_state = {ds0.view(), true};
    kda_backward(cpu, b);
    const Tensor got[] = {added[0], added[1],  added[2],     added[3],
                          added[4], dA.view(), dbias.view(), ds0.view()};
    for (size_t i = 0; i < 8; ++i)
      for (int64_t e = 0; e < got[i].numel();
           ++e)  // 1e-10: GEMM kernels differ with the row stride
        ASSERT_NEAR(element(got[i], e), 7 + element(want[i].second, e),
                    1e-10 * (1 + std::abs(element(want[i].second, e))))
            << want[i].first << " " << e;
    int64_t untouched = 0;
    for (int64_t e = 0; e < N * wide; ++e) untouched += element(out.view(), e) == 7;
    EXPECT_GE(untouched, N * (wide - 2 * 2 * 8 - 4 * 6 - 4 * 8 - 4));
  }
}

TEST(Kda, NoRows) {
  for (const Mode mode : {Mode::run, Mode::reference})
    for (const std::vector<int32_t>& cu :
         {std::vector<int32_t>{0, 0, 0}, std::vector<int32_t>{0}}) {
      CpuContext cpu(mode);
      KdaProblem p({.H = 1, .HV = 2, .K = 4, .V = 3, .cu = cu, .params = {}});
      p.run(cpu);
      EXPECT_TRUE(same_bits(p.s1.view(), p.s0.view()));
      EXPECT_TRUE(same_bits(p.ds0.view(), p.ds1.view()));
      for (const Tensor& t : {p.dA_log.view(), p.ddt_bias.view()})
        for (int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(element(t, i), 0);
    }
}

TEST(Kda, EmptyDocumentWithoutInitialStateEndsAtZero) {
  for (const Mode mode : {Mode::run, Mode::reference}) {
    CpuContext cpu(mode);
    KdaProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 3, 3}, .params = {}});
    KdaForward a = p.forward_args();
    a.initial_state = {};
    kda_forward(cpu, a);
    for (int64_t i = 12; i < 24; ++i) EXPECT_EQ(element(p.s1.view(), i), 0);
  }
}

// A gate that is -infinity, and logits far out: no result is NaN.
TEST(Kda, InfiniteLogitsStayFinite) {
  for (const GateLaw law : {GateLaw::softplus, GateLaw::bounded})
    for (const Mode mode : {Mode::run, Mode::reference}) {
      KdaProblem p({.H = 1, .HV = 1, .K = 4, .V = 3, .cu = {0, 40}, .params = {law, -5, 1}},
                   DType::f32);
      for (int64_t i = 0; i < p.g.view().numel(); i += 3)
        set_element(p.g.view(), i, i % 2 ? INFINITY : -INFINITY);
      p.run(CpuContext(mode));
      for (const auto& [name, t] : p.results())
        for (int64_t i = 0; i < t.numel(); ++i) ASSERT_TRUE(std::isfinite(element(t, i))) << name;
    }
}

TEST(Kda, PlanTakesTheMemoryThatRunTakes) {
  KdaProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
  Arena plan = Arena::plan(Device::cpu);
  const Context planning{.mode = Mode::plan, .arena = &plan};
  KdaForward f = p.forward_args();
  f.saved = make_tensor(nullptr, DType::u8, Device::cpu, {kda_saved_bytes(planning, f)});
  KdaBackward b = p.backward_args();
  b.saved = f.saved;
  b.q.data = b.cu_seqlens.data = f.o.data = nullptr;
  kda_forward(planning, f);
  kda_backward(planning, b);
  CpuContext cpu;
  EXPECT_EQ(f.saved.numel(), kda_saved_bytes(cpu, f));
  p.run(cpu);
  EXPECT_EQ(plan.peak(), cpu.arena.peak());
  EXPECT_EQ(cpu.arena.used(), 0);
}

TEST(Kda, BrokenContractsNameTheValues) {
  CpuContext cpu;
  KdaProblem p({.H = 2, .HV = 4, .K = 8, .V = 6, .cu = {0, 30, 100}, .params = {}});
  auto forward = [&](const std::function<void(KdaForward&)>& change) {
    return [&p, &cpu, change] {
      KdaForward a = p.forward_args();
      change(a);
      kda_forward(cpu, a);
    };
  };
  expect_message(forward([](KdaForward& a) { a.k = a.k.rows(0, 99); }), "k is f64 [99, 2, 8]");
  expect_message(forward([&](KdaForward& a) { a.v = p.q.view(); }), "g is f64 [100, 4, 8]");
  expect_message(forward([](KdaForward& a) { a.dt_bias = a.dt_bias.rows(0, 3); }), "dt_bias is");
  expect_message(forward([](KdaForward& a) { a.initial_state = a.initial_state.rows(0, 1); }),
                 "initial_state is f64 [1, 4, 8, 6]");
  expect_message(forward([](KdaForward& a) { a.params.beta_max = 3; }), "beta_max is 3");
  expect_message(forward([](KdaForward& a) {
                   a.params = {GateLaw::bounded, 1, 1};
                 }),
                 "gate_lower_bound is 1");
  expect_message(
      forward([&](KdaForward& a) { a.saved = make_tensor(a.o.data, DType::u8, Device::cpu, {5}); }),
      "saved is u8 [5]");
  KdaProblem odd({.H = 2, .HV = 3, .K = 8, .V = 6, .cu = {0, 3}, .params = {}});
  expect_message([&] { odd.forward(cpu); }, "value heads 3 are no multiple of heads 2");
  p.cu.view().as<int32_t>()[2] = 99;
  expect_message(forward([](KdaForward&) {}), "ends at 99, expected 100");
  p.cu.view().as<int32_t>()[2] = 100;
  expect_message(
      [&] {
        p.allocate_saved(cpu);
        KdaBackward b = p.backward_args();
        b.ddt_bias.t = p.A_log.view();
        kda_backward(cpu, b);
      },
      "ddt_bias is f64 [4]");
}

}  // namespace
}  // namespace sluice::test
