// tests/model/selective_test.cpp -- values that are made again in backward, and gradients that are
// passed on without a copy.
#include "model/autograd/basic_ops.h"
#include "model/autograd/plain_store.h"
#include "model/autograd/tape.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

constexpr int64_t kN = 4, kC = 264, kF = 16;  // a product of kC terms is not cheap
constexpr int64_t kValue = kN * kC * 8, kUp = kN * 2 * kF * 8;  // bytes of a [N, C], a [N, 2 F]

std::vector<double> values_of(const Tensor& t) {
  std::vector<double> list;
  for (int64_t i = 0; i < t.numel(); ++i) list.push_back(element(t, i));
  return list;
}

class Selective : public ::testing::Test {
 protected:
  Selective() : ctx_(Mode::run, 1, 1 << 20), store_(DType::f64), x_(DType::f64, {kN, kC}) {
    fill_normal(x_.view(), 1);
    group_ = store_.add_group("a");
    const auto weight = [&](const char* name, std::vector<int64_t> shape) {
      return store_.add({.name = name, .shape = std::move(shape), .group = group_});
    };
    norm_ = weight("norm", {kC}), up_ = weight("up", {2 * kF, kC}),
    down_ = weight("down", {kC, kF});
    store_.allocate();
    for (const Shard& s : store_.shards()) fill_normal(s.master, 2 + uint64_t(s.id.index));
  }

  // x + W_down swiglu(W_up norm(x)), as a block.
  Var feed_forward(Tape& tape, const Var& x, Recompute recompute) {
    const auto body = [this, &tape, x] {
      const Var up = linear(tape, rmsnorm(tape, x, norm_, 1e-6), up_);
      return std::vector<Var>{add(tape, x, linear(tape, swiglu(tape, up), down_))};
    };
    return tape.block("ffn", {group_}, recompute, body).front();
  }

  // y = x^3 / 6 of a value that can be made again; counts how often it is.
  Var cubed(Tape& tape, const Var& x, int* again, int64_t* live) {
    const Var y = tape.make(DType::f64, {kN, kC});
    const auto forward = [](const Tensor& from, const Tensor& to) {
      for (int64_t i = 0; i < to.numel(); ++i)
        set_element(to, i, element(from, i) * element(from, i) * element(from, i) / 6);
    };
    forward(x.value, y.value);
    tape.record(
        "cubed", y,
        [this, &tape, x = tape.keep(x), live, id = y.id] {
          *live = ctx_.ctx.arena->used();
          const Tensor dy = tape.upstream(id), from = tape.value(x);
          const Grad dx = tape.grad(x);
          for (int64_t i = 0; i < dy.numel(); ++i)
            set_element(dx.t, i,
                        (dx.add ? element(dx.t, i) : 0) +
                            element(dy, i) * element(from, i) * element(from, i) / 2);
        },
        [&tape, forward, again, x = tape.keep(x)](const Tensor& out) {
          ++*again;
          forward(tape.value(x), out);
        });
    return y;
  }
  // The sum of all, by a product with itself alone: its backward reads x.
  Var squares(Tape& tape, const Var& x) {
    const Var loss = tape.make(DType::f64, {1});
    double sum = 0;
    for (double v : values_of(x.value)) sum += v * v / 2;
    set_element(loss.value, 0, sum);
    tape.record("squares", loss, [&tape, x = tape.keep(x)] {
      const Tensor from = tape.value(x);
      const Grad dx = tape.grad(x);
      for (int64_t i = 0; i < from.numel(); ++i)
        set_element(dx.t, i, (dx.add ? element(dx.t, i) : 0) + element(from, i));
    });
    return loss;
  }

  CpuContext ctx_;
  PlainStore store_;
  Buffer x_;
  int group_ = -1;
  ParamId norm_, up_, down_;
};

TEST_F(Selective, KeepsOnlyProductsAndGivesTheSameBits) {
  std::vector<std::vector<double>> gradients[2];
  int64_t kept[2];
  for (const Recompute recompute : {Recompute::none, Recompute::selective}) {
    const auto i = size_t(recompute == Recompute::selective);
    store_.start_step();
    Tape tape(ctx_, store_, Tape::Mode::train);
    const Var x = tape.input(x_.view());
    const int64_t before = ctx_.ctx.arena->used();
    Var y = feed_forward(tape, x, recompute);
    kept[i] = ctx_.ctx.arena->used() - before;
    const Var loss = squares(tape, y);
    y = {};
    tape.backward(loss);
    store_.finish_gradients();
    EXPECT_EQ(ctx_.ctx.arena->used() - before, kValue + 256) << "the gradient of x, the loss";
    gradients[i].push_back(values_of(tape.upstream(x.id)));
    for (const Shard& s : store_.shards()) gradients[i].push_back(values_of(s.grad));
  }
  EXPECT_EQ(gradients[0], gradients[1]);
  // The output, rstd (one range), gate and up; without selection also the norm and the activation.
  EXPECT_EQ(kept[1], kValue + 256 + kUp);
  EXPECT_EQ(kept[0], kept[1] + kValue + kUp / 2);
  EXPECT_EQ(ctx_.ctx.arena->used(), 0);
}

TEST_F(Selective, AValueIsMadeOnceAndGoneBeforeItsMakersBackward) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective}) {
    int again = 0;
    int64_t live = 0;
    Tape tape(ctx_, store_, Tape::Mode::train);
    const Var x = tape.input(x_.view());
    const auto loss = tape.block("b", {}, recompute, [&] {
      const Var y = cubed(tape, x, &again, &live);
      int unused = 0;
      int64_t ignored = 0;
      const Var z = add(tape, cubed(tape, y, &unused, &ignored), cubed(tape, y, &unused, &ignored));
      return std::vector<Var>{squares(tape, z)};
    });
    EXPECT_EQ(again, 0);
    tape.backward(loss.front());
    EXPECT_EQ(again, recompute == Recompute::selective);
    EXPECT_EQ(live, kValue + 256) << "the gradient of y, and the loss";
  }
}

TEST_F(Selective, AValueThatIsMadeAgainIsNotHandedOut) {
  Tape tape(ctx_, store_, Tape::Mode::train);
  const Var x = tape.input(x_.view());
  expect_contains(error_of([&] {
                    tape.block("b", {group_}, Recompute::selective,
                               [&] { return std::vector<Var>{rmsnorm(tape, x, norm_, 1e-6)}; });
                  }),
                  {"b: hands out a value that is made again"});
}

// What is added to the gradient of one operand must not reach the other, nor the sum's.
TEST_F(Selective, PassedOnGradientsAreTheirOwn) {
  int unused = 0;
  int64_t ignored = 0;
  Tape tape(ctx_, store_, Tape::Mode::train);
  const Buffer other(x_.view());
  fill_normal(other.view(), 9);
  const Var a = tape.input(x_.view()), b = tape.input(other.view());
  const Var c = cubed(tape, a, &unused, &ignored);
  const Var y = add(tape, add(tape, a, b), add(tape, c, c));
  tape.backward(squares(tape, y));
  for (int64_t i = 0; i < kN * kC; ++i) {
    const double va = element(a.value, i), vb = element(b.value, i);
    const double dy = va + vb + va * va * va / 3;
    EXPECT_NEAR(element(tape.upstream(b.id), i), dy, 1e-12 * (1 + std::abs(dy)));
    EXPECT_NEAR(element(tape.upstream(a.id), i), dy * (1 + va * va), 1e-11 * (1 + std::abs(dy)));
  }
}

}  // namespace
}  // namespace sluice::test
