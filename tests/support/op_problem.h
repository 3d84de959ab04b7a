// tests/support/op_problem.h -- one op call with named tensors, and the checks that every op owes.
//
// Names carry the meaning: the gradient of input "x" is output "dx", the upstream gradient of
// output "y" is input "dy"; an output without one ("rstd") takes no part in the loss sum(dy * y).
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice::test {

enum class Layout : uint8_t { dense, strided };
struct Setup {
  DType dtype = DType::f32;
  int64_t N = 0;  // rows
  Layout layout = Layout::dense;
};

class OpProblem {
 public:
  using Call = std::function<void(const Context&, const OpProblem&)>;
  struct Slot {
    Buffer memory;  // strided: wider than the tensor
    Tensor tensor;
    bool output = false, rows = false;  // rows: [N, ...], one a row of the problem
  };

  explicit OpProblem(const Setup& setup) : N(setup.N), setup_(setup) {}

  // Inputs are N(0, 1) by name and index, outputs NaN. Row tensors are [N, dims...].
  void row_input(const std::string& name, const std::vector<int64_t>& dims) {
    rows(name, dims, false);
  }
  void row_output(const std::string& name, const std::vector<int64_t>& dims) {
    rows(name, dims, true);
  }
  void input(const std::string& name, std::initializer_list<int64_t> shape) {
    Buffer b(setup_.dtype, shape);
    place(name, {.memory = std::move(b), .tensor = {}}).tensor = slots_[name].memory.view();
    fill_normal(slots_[name].tensor, rng_key(1, name));
  }
  void output(const std::string& name, std::initializer_list<int64_t> shape) {
    Buffer b(setup_.dtype, shape);
    place(name, {.memory = std::move(b), .tensor = {}, .output = true}).tensor =
        slots_[name].memory.view();
    fill(slots_[name].tensor, std::numeric_limits<double>::quiet_NaN());
  }
  // i32 [N], most of the V ids repeated or left out.
  void tokens(const std::string& name, int64_t V) {
    Slot& s = place(name, {.memory = Buffer(DType::i32, {N}), .tensor = {}, .rows = true});
    s.tensor = s.memory.view();
    for (int64_t n = 0; n < N; ++n)
      s.tensor.as<int32_t>()[n] =
          int32_t(random_u64(7, uint64_t(n)) % uint64_t((V + 1) / 2)) * 2 % int32_t(V);
  }

  // In the place of a tensor another one of its shape: the GPU's.
  void replace(const std::string& name, const Tensor& t) { slots_.at(name).tensor = t; }

  Tensor operator[](const std::string& name) const {
    const auto found = slots_.find(name);
    SLUICE_CHECK(found != slots_.end(), "no tensor ", name);
    Tensor t = found->second.tensor;
    if (planning_) t.data = nullptr;
    return t;
  }
  Grad grad(const std::string& name) const { return {.t = (*this)[name], .add = adds_}; }
  bool has(const std::string& name) const { return slots_.count(name) > 0; }
  const std::map<std::string, Slot>& slots() const { return slots_; }

  void gradients_add() { adds_ = true; }
  void plan_only() { planning_ = true; }  // tensors have no memory from here on
  void run(const Context& ctx) const {
    forward(ctx, *this);
    backward(ctx, *this);
  }

  int64_t N;
  Call forward, backward;

 private:
  Slot& place(const std::string& name, Slot slot) { return slots_[name] = std::move(slot); }
  void rows(const std::string& name, const std::vector<int64_t>& dims, bool output) {
    int64_t width = 1;
    for (int64_t d : dims) width *= d;
    const bool strided = setup_.layout == Layout::strided && !dims.empty();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    Slot& s = place(name, {.memory = Buffer(setup_.dtype, {N, width + (strided ? 5 : 0)}),
                           .tensor = {},
                           .output = output,
                           .rows = true});
    fill(s.memory.view(), nan);
    s.tensor = s.memory.view();
    if (strided) s.tensor = s.tensor.columns(2, width);
    if (dims.empty()) s.tensor = s.tensor.reshape({N});
    if (dims.size() == 2) s.tensor = s.tensor.reshape({N, dims[0], dims[1]});
    if (!output) fill_normal(s.tensor, rng_key(1, name));
  }

  Setup setup_;
  bool adds_ = false, planning_ = false;
  std::map<std::string, Slot> slots_;
};

// As CpuContext, with little memory: filling it with NaN is what takes the time of small tests.
struct SmallContext : CpuContext {
  explicit SmallContext(Mode mode = Mode::run, int threads = 2)
      : CpuContext(mode, threads, 1 << 20) {}
};

using MakeProblem = std::function<OpProblem(const Setup&)>;

inline void copy_elements(const Tensor& from, const Tensor& to) {
  SLUICE_CHECK(from.numel() == to.numel(), to_string(from), " to ", to_string(to));
  if (from.dtype == DType::i32)
    std::memcpy(to.data, from.data, size_t(from.bytes()));
  else
    for (int64_t i = 0; i < from.numel(); ++i) set_element(to, i, element(from, i));
}
inline void copy_inputs(const OpProblem& from, const OpProblem& to) {
  for (const auto& [name, slot] : from.slots())
    if (!slot.output) copy_elements(slot.tensor, to[name]);
}
inline void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.numel(), b.numel()) << what;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double x = element(a, i), y = element(b, i);  // exact for both types
    ASSERT_EQ(std::memcmp(&x, &y, sizeof x), 0)
        << what << ", element " << i << ": " << x << ", " << y;
  }
}
inline void expect_same_outputs(const OpProblem& a, const OpProblem& b, const std::string& what) {
  for (const auto& [name, slot] : a.slots())
    if (slot.output) expect_same_bits(slot.tensor, b[name], name + ", " + what);
}

// Analytic gradients of every input against central differences, f64.
inline void expect_gradients(const MakeProblem& make, Mode mode, int64_t N) {
  const SmallContext ctx(mode);
  const OpProblem p = make({.dtype = DType::f64, .N = N, .layout = Layout::strided});
  p.run(ctx);
  const auto loss = [&] {
    p.forward(ctx, p);
    double sum = 0;
    for (const auto& [name, slot] : p.slots())
      if (slot.output && p.has("d" + name)) sum += dot(p["d" + name], slot.tensor);
    return sum;
  };
  int checked = 0;
  for (const auto& [name, slot] : p.slots())
    if (!slot.output && p.has("d" + name) && p.slots().at("d" + name).output) {
      // Central differences in f64 are good to about 1e-9; a wrong term shows at 1e-2.
      EXPECT_LT(gradcheck(loss, slot.tensor, p["d" + name], rng_key(2, name)), 1e-6) << name;
      ++checked;
    }
  EXPECT_GT(checked, 0);
}

// Both back ends in f32 against the reference in f64, fed the same f32 inputs. `ulps`: output ->
// bound in units of f32's epsilon times max(|want|, rms(want)); every output must be named.
inline void expect_f32_near_reference(const MakeProblem& make, int64_t N,
                                      const std::map<std::string, double>& ulps) {
  for (Layout layout : {Layout::dense, Layout::strided})
    for (Mode mode : {Mode::run, Mode::reference}) {
      const OpProblem got = make({.dtype = DType::f32, .N = N, .layout = layout});
      const OpProblem want = make({.dtype = DType::f64, .N = N});
      copy_inputs(got, want);
      got.run(SmallContext(mode));
      want.run(SmallContext(Mode::reference));
      for (const auto& [name, slot] : got.slots()) {
        if (!slot.output) continue;
        const auto bound = ulps.find(name);
        ASSERT_NE(bound, ulps.end()) << name;
        const ErrorStats e = compare(slot.tensor, want[name], bound->second);
        EXPECT_LE(e.worst, 1) << name << ", N " << N
                              << (mode == Mode::run ? ", cpu: " : ", reference: ") << e;
      }
    }
}

inline void expect_threads_change_no_bit(const MakeProblem& make, int64_t N) {
  const OpProblem one = make({.N = N});
  one.run(SmallContext(Mode::run, 1));
  for (int threads : {2, 3}) {
    const OpProblem many = make({.N = N});
    many.run(SmallContext(Mode::run, threads));
    expect_same_outputs(one, many, std::to_string(threads) + " threads");
  }
  const OpProblem none = make({.N = N});
  SmallContext ctx;
  ctx.ctx.threads = nullptr;
  none.run(ctx);
  expect_same_outputs(one, none, "no pool");
}

// Strided rows give the bits of dense ones, and nothing is written beside them.
inline void expect_strides_change_no_bit(const MakeProblem& make, Mode mode, int64_t N) {
  const OpProblem dense = make({.N = N}), strided = make({.N = N, .layout = Layout::strided});
  dense.run(SmallContext(mode));
  strided.run(SmallContext(mode));
  expect_same_outputs(dense, strided, "strided");
  for (const auto& [name, slot] : strided.slots()) {
    if (!slot.output || !slot.rows || slot.tensor.rank < 2) continue;
    const int64_t width = slot.memory.view().dim(1);
    if (width * N == slot.tensor.numel()) continue;  // an op of dense tensors
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c : {int64_t(0), int64_t(1), width - 3, width - 2, width - 1})
        EXPECT_TRUE(std::isnan(slot.memory.view().row<float>(n)[c]))
            << name << " " << n << " " << c;
  }
}

inline void expect_gradients_add(const MakeProblem& make, Mode mode, int64_t N) {
  const OpProblem written = make({.dtype = DType::f64, .N = N});
  OpProblem added = make({.dtype = DType::f64, .N = N});
  added.gradients_add();
  const auto is_gradient = [&](const std::string& name, const OpProblem::Slot& slot) {
    return slot.output && name[0] == 'd' && added.has(name.substr(1));
  };
  for (const auto& [name, slot] : added.slots())
    if (is_gradient(name, slot)) fill(slot.tensor, 100);
  written.run(SmallContext(mode));
  added.run(SmallContext(mode));
  for (const auto& [name, slot] : added.slots())
    for (int64_t i = 0; is_gradient(name, slot) && i < slot.tensor.numel(); ++i)
      // A few hundred additions, each rounded near 100: 1e-14 apiece.
      ASSERT_NEAR(element(slot.tensor, i), 100 + element(written[name], i), 1e-11)
          << name << " " << i;
}

// What belongs to row n has the bits that row n alone would give.
inline void expect_rows_independent(const MakeProblem& make, Mode mode, int64_t N) {
  const OpProblem all = make({.N = N});
  all.run(SmallContext(mode));
  for (int64_t n : {int64_t(0), N / 2, N - 1}) {
    const OpProblem one = make({.N = 1});
    for (const auto& [name, slot] : all.slots())
      if (!slot.output) copy_elements(slot.rows ? slot.tensor.rows(n, 1) : slot.tensor, one[name]);
    one.run(SmallContext(mode));
    for (const auto& [name, slot] : all.slots())
      if (slot.output && slot.rows) expect_same_bits(slot.tensor.rows(n, 1), one[name], name);
  }
}

// No rows: parameter gradients are zeros, or what they were if they are added to.
inline void expect_no_rows_are_fine(const MakeProblem& make, Mode mode) {
  for (double before : {0.0, 100.0}) {
    OpProblem p = make({.N = 0});
    if (before != 0) {
      p.gradients_add();
      for (const auto& [name, slot] : p.slots())
        if (slot.output) fill(slot.tensor, before);
    }
    p.run(SmallContext(mode));
    for (const auto& [name, slot] : p.slots())
      for (int64_t i = 0; slot.output && i < slot.tensor.numel(); ++i)
        EXPECT_EQ(element(slot.tensor, i), before) << name << " " << i;
  }
}

inline void expect_plan_is_run(const MakeProblem& make, int64_t N) {
  SmallContext run;
  make({.N = N}).run(run);
  Arena arena = Arena::plan(Device::cpu);
  OpProblem p = make({.N = N});
  p.plan_only();
  p.run({.mode = Mode::plan, .arena = &arena});
  EXPECT_EQ(arena.peak(), run.arena.peak());
  EXPECT_EQ(arena.used(), 0);
  EXPECT_EQ(run.arena.used(), 0);
}

// All of the above but gradients and rounding errors, which need the op's own shapes and bounds.
inline void expect_op_promises(const MakeProblem& make) {
  for (Mode mode : {Mode::run, Mode::reference}) {
    expect_no_rows_are_fine(make, mode);
    expect_gradients_add(make, mode, 70);
    for (int64_t N : {1, 3, 130}) expect_strides_change_no_bit(make, mode, N);
  }
  for (int64_t N : {0, 1, 64, 300}) {
    expect_threads_change_no_bit(make, N);
    expect_plan_is_run(make, N);
  }
}

inline void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << " lacks " << part;
}

}  // namespace sluice::test
