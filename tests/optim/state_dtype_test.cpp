// tests/optim/state_dtype_test.cpp -- bf16 states of an optimizer: bytes, seeds, and any sharding.
#include <gtest/gtest.h>

#include "model/autograd/plain_store.h"
#include "optim/optimizer.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

using test::CpuContext;

OptimConfig config(const std::string& kind) {
  OptimConfig c;
  c.kind = kind;
  c.state_dtype = "bf16";
  return c;
}

struct Model {
  Model() : params(DType::f32), lm(test::tiny_moe_config(), params) {
    params.allocate();
    initialize(params, 1);
    for (const Shard& s : params.trained_shards())
      test::fill_normal(s.grad, uint64_t(50 + s.id.index), 0.01);
  }
  PlainStore params;
  Lm lm;
};

void steps(Optimizer& optimizer, int64_t n) {
  const CpuContext ctx;
  for (int64_t i = 1; i <= n; ++i) {
    const StepState state{.step = i, .lr = 0.01F};
    optimizer.step(ctx, &state);
  }
}

TEST(StateDtype, HalvesTheBytes) {
  for (const char* kind : {"adamw", "muon"}) {
    Model model;
    OptimConfig wide = config(kind);
    wide.state_dtype = "f32";
    const Optimizer narrow(config(kind), model.params);
    EXPECT_EQ(2 * narrow.bytes(), Optimizer(wide, model.params).bytes());
    EXPECT_EQ(narrow.host_bytes(), 0);
    for (const auto& [name, m, v, id, begin] : narrow.moments()) {
      EXPECT_EQ(m.dtype, DType::bf16) << name;
      if (v) {
        EXPECT_EQ(v.dtype, DType::bf16) << name;
      }
    }
    PlainStore planned(DType::f32);
    const Lm lm(test::tiny_moe_config(), planned);
    planned.plan();
    EXPECT_EQ(Optimizer(config(kind), planned).bytes(), narrow.bytes());
  }
}

// Equal seeds give equal bits, another seed gives others, and no two parameters share their bits.
TEST(StateDtype, TheSeedDecides) {
  for (const char* kind : {"adamw", "muon"}) {
    Model a, b, c;
    Optimizer first(config(kind), a.params, {}, 3), again(config(kind), b.params, {}, 3),
        other(config(kind), c.params, {}, 4);
    for (Optimizer* o : {&first, &again, &other}) steps(*o, 2);
    int64_t same = 0, all = 0;
    for (size_t i = 0; i < first.moments().size(); ++i) {
      const Tensor x = first.moments()[i].m, y = again.moments()[i].m, z = other.moments()[i].m;
      EXPECT_TRUE(test::same_bits(x, y)) << first.moments()[i].name;
      for (int64_t k = 0; k < x.numel(); ++k)
        same += test::element(x, k) == test::element(z, k), ++all;
    }
    EXPECT_LT(double(same), 0.9 * double(all)) << kind;
  }
}

// Whole parameters as one store has them, and the same cut in two at odd places.
class HalvedStore : public PlainStore {
 public:
  using PlainStore::PlainStore;
  void halve(bool second) {
    for (const Shard& s : PlainStore::shards()) {
      const int64_t n = s.master.numel(), cut = n * 3 / 7;
      const int64_t begin = second ? cut : 0, count = second ? n - cut : cut;
      Shard part = s;
      part.begin = begin;
      part.master = s.master.rows(begin, count);
      if (s.grad) part.grad = s.grad.rows(begin, count);
      parts_.push_back(part);
    }
  }
  const std::vector<Shard>& shards() const override {
    return parts_.empty() ? PlainStore::shards() : parts_;
  }

 private:
  std::vector<Shard> parts_;
};

TEST(StateDtype, AdamWsBitsAreThoseOfAnyShard) {
  Model whole;
  Optimizer optimizer(config("adamw"), whole.params, {}, 3);
  steps(optimizer, 3);
  for (const bool second : {false, true}) {
    HalvedStore half(DType::f32);
    const Lm lm(test::tiny_moe_config(), half);
    half.allocate();
    initialize(half, 1);
    for (const Shard& s : half.trained_shards())
      test::fill_normal(s.grad, uint64_t(50 + s.id.index), 0.01);
    half.halve(second);
    Optimizer part(config("adamw"), half, {}, 3);
    steps(part, 3);
    const std::vector<Shard> shards = half.trained_shards();
    for (size_t i = 0; i < shards.size(); ++i) {
      const Tensor m = part.moments()[i].m, v = part.moments()[i].v;
      const auto rows = [&](const Tensor& t) { return t.rows(shards[i].begin, m.numel()); };
      EXPECT_TRUE(test::same_bits(m, rows(optimizer.moments()[i].m))) << part.moments()[i].name;
      EXPECT_TRUE(test::same_bits(v, rows(optimizer.moments()[i].v)));
    }
  }
}

TEST(StateDtype, OffloadingFromTheHostIsRefused) {
  Model model;
  OptimConfig c = config("adamw");
  c.offload = "host";
  test::expect_contains(test::error_of([&] { Optimizer(c, model.params); }),
                        {"optim.offload is host", "cpu"});
}

}  // namespace
}  // namespace sluice
