// tests/model/tape_test.cpp -- the promises of tape.h, on ops of one line.
#include "model/autograd/tape.h"

#include <cmath>
#include <limits>

#include "model/autograd/basic_ops.h"
#include "model/autograd/plain_store.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

constexpr int64_t kN = 3, kC = 4;
constexpr int64_t kValue = 256;  // bytes of a [3, 4] f64 in the arena: one aligned range

// What an op's loops are given: nothing in plan mode, where there is no memory.
int64_t elements(Tape& tape, const Tensor& t) {
  return tape.ctx().mode == Mode::plan ? 0 : t.numel();
}
void accumulate(const Grad& g, int64_t i, double v) {
  set_element(g.t, i, v + (g.add ? element(g.t, i) : 0));
}

// y = c x. Its backward reads neither x nor y, so neither is kept.
Var times(Tape& tape, const Var& x, double c, const char* name = "times") {
  const Var y = tape.make(DType::f64, {x.value.dim(0), x.value.dim(1)});
  for (int64_t i = 0; i < elements(tape, y.value); ++i)
    set_element(y.value, i, c * element(x.value, i));
  tape.record(name, y, [&tape, x_id = x.id, like = x.value, c, id = y.id] {
    const Tensor dy = tape.upstream(id);
    const Grad dx = tape.grad(x_id, like);
    for (int64_t i = 0; i < elements(tape, dy); ++i) accumulate(dx, i, c * element(dy, i));
  });
  return y;
}

// y = x^2 / 2. Its backward reads x.
Var square(Tape& tape, const Var& x) {
  const Var y = tape.make(DType::f64, {x.value.dim(0), x.value.dim(1)});
  for (int64_t i = 0; i < elements(tape, y.value); ++i)
    set_element(y.value, i, element(x.value, i) * element(x.value, i) / 2);
  tape.record("square", y, [&tape, x, id = y.id] {
    const Tensor dy = tape.upstream(id);
    const Grad dx = tape.grad(x);
    for (int64_t i = 0; i < elements(tape, dy); ++i)
      accumulate(dx, i, element(x.value, i) * element(dy, i));
  });
  return y;
}

// loss = sum of w_i x_i, w_i = i + 1.
Var total(Tape& tape, const Var& x) {
  const Var loss = tape.make(DType::f64, {1});
  double sum = 0;
  for (int64_t i = 0; i < elements(tape, x.value); ++i) sum += double(i + 1) * element(x.value, i);
  if (elements(tape, loss.value) > 0) set_element(loss.value, 0, sum);
  tape.record("total", loss, [&tape, x_id = x.id, like = x.value, id = loss.id] {
    const double dy = elements(tape, like) > 0 ? element(tape.upstream(id), 0) : 0;
    const Grad dx = tape.grad(x_id, like);
    for (int64_t i = 0; i < elements(tape, like); ++i) accumulate(dx, i, double(i + 1) * dy);
  });
  return loss;
}

// The first four columns, dense.
Var half(Tape& tape, const Var& x) {
  return times(tape, tape.split(x, {kC, kC})[0], 1);
}

// y = x; its backward does `also` after its duty.
Var pass_on(Tape& tape, const Var& x, const std::function<void()>& also) {
  const Var y = tape.make(DType::f64, {x.value.dim(0), x.value.dim(1)});
  copy(x.value, y.value);
  tape.record("slip", y, [&tape, x, also, id = y.id] {
    const Tensor dy = tape.upstream(id);
    const Grad dx = tape.grad(x);
    for (int64_t i = 0; i < dy.numel(); ++i) accumulate(dx, i, element(dy, i));
    also();
  });
  return y;
}

class TapeTest : public ::testing::Test {
 protected:
  TapeTest() : ctx_(Mode::run, 1, 1 << 20), store_(DType::f64), x_(DType::f64, {kN, kC}) {
    fill_normal(x_.view(), 1);
    for (const char* name : {"a", "b"}) {
      group_.push_back(store_.add_group(name));
      weight_.push_back(
          store_.add({.name = cat(name, ".w"), .shape = {2 * kC, kC}, .group = group_.back()}));
    }
    store_.allocate();
    for (const Shard& s : store_.shards()) fill_normal(s.master, 2 + uint64_t(s.id.index));
  }

  // d total(f(x)) / dx, and the parameters' gradients in the store.
  std::vector<double> gradient(const std::function<Var(Tape&, const Var&)>& f) {
    store_.start_step();
    Tape tape(ctx_, store_, Tape::Mode::train);
    const Var x = tape.input(x_.view());
    tape.backward(total(tape, f(tape, x)));
    store_.finish_gradients();
    const Tensor dx = tape.upstream(x.id);
    std::vector<double> out;
    for (int64_t i = 0; i < dx.numel(); ++i) out.push_back(element(dx, i));
    for (const Shard& s : store_.shards())
      for (int64_t i = 0; i < s.grad.numel(); ++i) out.push_back(element(s.grad, i));
    return out;
  }
  double x(int64_t i) const { return element(x_.view(), i); }

  CpuContext ctx_;
  PlainStore store_;
  Buffer x_;
  std::vector<int> group_;
  std::vector<ParamId> weight_;
};

TEST_F(TapeTest, AValueMayHaveManyConsumers) {
  const auto got = gradient([](Tape& tape, const Var& x) {
    const Var y = times(tape, x, 2);
    return add(tape, add(tape, times(tape, y, 3), y), add(tape, square(tape, y), add(tape, y, y)));
  });
  // 2 x (3 + 1 + 2x + 2) by element: every consumer of y counts, and y twice in one op.
  for (int64_t i = 0; i < kN * kC; ++i)
    EXPECT_NEAR(got[size_t(i)], double(i + 1) * 2 * (6 + 2 * x(i)), 1e-12) << i;
}

TEST_F(TapeTest, WhatTheLossDoesNotReadIsNotDifferentiated) {
  int ran = 0;
  const auto got = gradient([&](Tape& tape, const Var& x) {
    const Var unused = times(tape, x, 100);
    tape.record("unused", times(tape, unused, 1), [&ran] { ++ran; });
    return times(tape, x, 2);
  });
  EXPECT_EQ(ran, 0);
  for (int64_t i = 0; i < kN * kC; ++i) EXPECT_EQ(got[size_t(i)], double(i + 1) * 2) << i;
  Tape tape(ctx_, store_, Tape::Mode::train);
  const Var alone = times(tape, tape.input(x_.view()), 1);
  expect_contains(error_of([&] { tape.upstream(alone.id); }), {"nothing consumed value"});
}

TEST_F(TapeTest, SplitRangesAreColumnsOfOneGradient) {
  for (const bool all : {true, false}) {
    const auto got = gradient([&](Tape& tape, const Var& x) {
      const std::vector<Var> parts = tape.split(times(tape, x, 2), {1, 1, 2});
      EXPECT_EQ(parts[2].value.stride[0], kC);
      const Var first = add(tape, times(tape, parts[0], 3), times(tape, parts[0], 1));
      return all ? add(tape, first, times(tape, parts[1], 5)) : first;
    });
    for (int64_t n = 0; n < kN; ++n)  // weights are n + 1: the sum is [N, 1]
      for (int64_t c = 0; c < kC; ++c) {
        const double by_column[] = {2.0 * (3 + 1), all ? 2.0 * 5 : 0, 0, 0};
        EXPECT_EQ(got[size_t(n * kC + c)], double(n + 1) * by_column[c]) << n << " " << c;
      }
  }
}

TEST_F(TapeTest, SplitRefuses) {
  Tape tape(ctx_, store_, Tape::Mode::train);
  const Var x = tape.input(x_.view());
  const Var whole = times(tape, x, 1);
  expect_contains(error_of([&] { tape.split(x, {1, 2}); }), {"3 columns of 4"});
  const auto parts = tape.split(whole, {2, 2});
  expect_contains(error_of([&] { tape.split(whole, {2, 2}); }), {"split before"});
  expect_contains(error_of([&] { tape.split(parts[0], {1, 1}); }), {"split before"});
  expect_contains(error_of([&] { tape.grad(whole); }), {"has another consumer"});
  const auto in_block = [&](const std::function<Var(Tape&, const Var&)>& whole_of) {
    return error_of([&] {
      Tape t(ctx_, store_, Tape::Mode::train);
      const Var outside = times(t, t.input(x_.view()), 1);
      t.block("b", {}, Recompute::block, [&] { return t.split(whole_of(t, outside), {2, 2}); });
    });
  };
  expect_contains(in_block([](Tape&, const Var& v) { return v; }), {"b: ", "from outside"});
  expect_contains(in_block([](Tape& t, const Var& v) { return times(t, v, 1); }),
                  {"b: ", "may not hand out"});
}

// Three blocks; the last reads the outputs of both others, and x, from outside.
Var blocks(Tape& tape, const Var& x, const std::vector<int>& groups,
           const std::vector<ParamId>& weights, Recompute recompute, std::vector<int>* runs) {
  const auto one = [&, x, runs](const char* name, size_t w, const Var& from, const Var& other) {
    return tape.block(
        name, {groups[w]}, recompute, [&tape, w, weight = weights[w], from, other, x, runs] {
          if (runs) ++(*runs)[2 * w + tape.replaying()];
          const auto parts = tape.split(linear(tape, from, weight), {kC, kC});
          const Var u = square(tape, parts[0]), v = times(tape, parts[1], 0.5);
          const Var more = half(tape, linear(tape, add(tape, u, other), weight));
          const Var w = add(tape, v, more);  // read in here and outside
          return std::vector<Var>{add(tape, add(tape, u, w), add(tape, u, x)), w, other};
        });
  };
  const auto a = one("a", 0, x, x);
  const auto b = one("b", 1, a[0], a[2]);
  const auto c = one("a again", 0, b[0], a[0]);
  return add(tape, add(tape, c[0], c[1]), add(tape, a[0], c[2]));
}

TEST_F(TapeTest, RecomputedBlocksGiveTheSameBits) {
  std::vector<int> runs(4), plain_runs(4);
  const auto f = [&](Recompute r, std::vector<int>* count) {
    return gradient(
        [&, r, count](Tape& t, const Var& x) { return blocks(t, x, group_, weight_, r, count); });
  };
  const auto want = f(Recompute::none, &plain_runs), got = f(Recompute::block, &runs);
  EXPECT_EQ(got, want);
  EXPECT_EQ(plain_runs, (std::vector<int>{2, 0, 1, 0}));
  EXPECT_EQ(runs, (std::vector<int>{2, 2, 1, 1})) << "first runs and replays of a, b";
}

TEST_F(TapeTest, BlocksNestInEveryCombination) {
  std::vector<std::vector<double>> results;
  for (const Recompute outer : {Recompute::none, Recompute::selective, Recompute::block})
    for (const Recompute inner : {Recompute::none, Recompute::selective, Recompute::block})
      results.push_back(gradient([&](Tape& tape, const Var& x) {
        return tape
            .block(
                "outer", {group_[0]}, outer,
                [this, &tape, x, inner] {
                  const Var y = half(tape, linear(tape, x, weight_[0]));
                  const auto z =
                      tape.block("inner", {group_[1], group_[0]}, inner, [this, &tape, x, y] {
                        const Var h = half(tape, linear(tape, x, weight_[1]));
                        return std::vector<Var>{square(tape, add(tape, y, h))};
                      });
                  return std::vector<Var>{add(tape, half(tape, linear(tape, z[0], weight_[0])), y)};
                })
            .front();
      }));
  for (const auto& r : results) EXPECT_EQ(r, results.front());
  const int64_t w = 2 * kC * kC;  // of each weight the second half makes columns that nobody takes
  for (int64_t i = 0; i < kN * kC + 2 * w; ++i) {
    const bool unused = i >= kN * kC && (i - kN * kC) % w >= w / 2;
    EXPECT_EQ(results[0][size_t(i)] == 0, unused) << i;
  }
}

TEST_F(TapeTest, InferenceRecordsNothing) {
  Tape tape(ctx_, store_, Tape::Mode::infer);
  EXPECT_FALSE(tape.recording());
  {
    const Var loss =
        total(tape, blocks(tape, tape.input(x_.view()), group_, weight_, Recompute::none, nullptr));
    EXPECT_EQ(ctx_.arena.used(), kValue) << "the loss alone is left";
    expect_contains(error_of([&] { tape.backward(loss); }), {"recorded nothing"});
  }
  EXPECT_EQ(ctx_.arena.used(), 0);
}

TEST_F(TapeTest, LossIsOneDouble) {
  Tape tape(ctx_, store_, Tape::Mode::train);
  const Var x = tape.input(x_.view());
  expect_contains(error_of([&] { tape.backward(x); }), {"loss is f64 [3, 4]", "expected f64 [1]"});
  expect_contains(error_of([&] { Tape({}, store_, Tape::Mode::train).make(DType::f64, {1}); }),
                  {"arena"});
}

// --- memory -----------------------------------------------------------------------------------

// Depth 10. What is not captured goes during the forward pass; what is stays; a block keeps its
// output. In bytes of the arena after the forward pass, the loss (one range) included.
TEST_F(TapeTest, WhatNoBackwardReadsIsFreedInTheForwardPass) {
  const auto kept = [&](const std::function<Var(Tape&, Var)>& op, Recompute recompute) {
    const int64_t before = ctx_.arena.used();
    Tape tape(ctx_, store_, Tape::Mode::train);
    Var y = tape.input(x_.view());
    for (int i = 0; i < 10; ++i)
      y = tape.block("b", {}, recompute, [&tape, &op, y] { return std::vector<Var>{op(tape, y)}; })
              .front();
    const Var loss = total(tape, y);
    y = Var{};
    const int64_t bytes = ctx_.arena.used() - before;
    tape.backward(loss);
    // The gradient of x: an input has no op that would free it. All else is gone.
    EXPECT_EQ(ctx_.arena.used() - before, 2 * kValue);
    return bytes / kValue;
  };
  const auto light = [](Tape& t, const Var& v) { return times(t, v, 2); };
  const auto heavy = [](Tape& t, const Var& v) { return times(t, square(t, square(t, v)), 2); };
  EXPECT_EQ(kept(light, Recompute::none), 1);
  EXPECT_EQ(kept(heavy, Recompute::none), 1 + 9 + 10) << "squares' inputs; one is the tape's";
  EXPECT_EQ(kept(heavy, Recompute::block), 1 + 9) << "what the bodies captured";
  EXPECT_EQ(ctx_.arena.used(), 0);
}

// With the plan's bytes and no more, twice at the same addresses.
TEST_F(TapeTest, EveryStepIsThePlan) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    std::vector<Arena> arenas;
    arenas.push_back(Arena::plan(Device::cpu));
    std::vector<std::vector<const void*>> addresses;
    for (int pass = 0; pass < 3; ++pass) {
      Context ctx = ctx_;
      ctx.mode = pass == 0 ? Mode::plan : Mode::run;
      ctx.arena = &arenas.back();
      {
        store_.start_step();
        Tape tape(ctx, store_, Tape::Mode::train);
        auto& seen = addresses.emplace_back();
        const Var x = tape.input(x_.view());
        const Var y = blocks(tape, x, group_, weight_, recompute, nullptr);
        seen.push_back(y.value.data);
        const Var loss = total(tape, y);
        tape.record("look", loss, [&, x] { seen.push_back(tape.grad(x).t.data); });
        tape.backward(loss);
        seen.push_back(loss.value.data);
      }
      EXPECT_EQ(arenas.back().used(), 0);
      if (pass == 0) arenas.emplace_back(Device::cpu, arenas[0].peak());
    }
    EXPECT_EQ(arenas[1].peak(), arenas[0].peak());
    EXPECT_EQ(addresses[1], addresses[2]);
    EXPECT_EQ(addresses[0], std::vector<const void*>(addresses[0].size(), nullptr));
  }
}

// --- not finite -------------------------------------------------------------------------------

TEST_F(TapeTest, TheFirstOpThatIsNotFiniteIsNamed) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    const auto report = [&](const std::function<Var(Tape&, const Var&)>& middle) {
      NonfiniteFinding first;
      Tape tape(ctx_, store_, Tape::Mode::train);
      tape.report_nonfinite(&first);
      Var v = tape.input(x_.view());
      for (const char* name : {"layers.0", "layers.1", "layers.2"})
        v = tape.block(name, {}, recompute,
                       [&tape, &middle, v, name = std::string(name)] {
                         const Var u = times(tape, v, 2, "double");
                         return std::vector<Var>{name == "layers.1" ? middle(tape, u) : u};
                       })
                .front();
      const Var loss = total(tape, v);
      tape.backward(loss);
      return first.what;
    };
    expect_contains(report([&](Tape& t, const Var& v) { return times(t, v, inf, "blow up"); }),
                    {"layers.1: blow up: output", "f64 [3, 4]", "12 elements", "at element 0"});
    const auto bad_backward = [&](Tape& t, const Var& v) {
      return pass_on(t, v, [&t, v, inf] { set_element(t.grad(v).t, 7, -inf); });
    };
    fill(x_.view(), 1e300);  // the sum of all overflows, outside of the blocks
    const auto large = [](Tape& t, const Var& v) { return times(t, v, 1e7); };
    expect_contains(report(large), {"total: output f64 [1]"});
    fill_normal(x_.view(), 1);
    expect_contains(report(bad_backward),
                    {"layers.1: slip: gradient of an input", "1 elements", "-inf at element 7"});
  }
}

TEST_F(TapeTest, AParametersGradientThatIsNotFiniteIsNamed) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
    store_.start_step();
    Tape tape(ctx_, store_, Tape::Mode::train);
    NonfiniteFinding first;
    tape.report_nonfinite(&first);
    const Var x = tape.input(x_.view());
    const auto y = tape.block("a", {group_[0]}, recompute, [&] {
      return std::vector<Var>{pass_on(tape, x, [&] {
        fill(store_.grad(weight_[0]).t, std::numeric_limits<double>::quiet_NaN());
      })};
    });
    const Var loss = total(tape, y[0]);
    tape.backward(loss);
    expect_contains(first.what, {"a.w: gradient", "32 elements"});
  }
}

}  // namespace
}  // namespace sluice::test
