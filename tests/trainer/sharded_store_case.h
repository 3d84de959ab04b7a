// tests/trainer/sharded_store_case.h -- parameters, values and gradients that are known on any
// mesh, and the passes that a tape would make.
#pragma once

#include <gtest/gtest.h>

#include "kernels/tensor/rng.h"
#include "trainer/parallel/sharded_store.h"

namespace sluice::test {

constexpr int kGroups = 5;  // embedding, three blocks, head

// Sizes that nothing divides, one parameter smaller than the number of ranks, experts, a frozen
// one.
inline void add_parameters(ParamStore& store) {
  const Init normal{Init::Kind::normal, 1, 0};
  const auto add = [&](int g, const char* name, std::vector<int64_t> shape, bool expert = false,
                       UpdateRule rule = UpdateRule::gradient) {
    store.add({.name = cat(store.group_name(g), ".", name),
               .shape = std::move(shape),
               .init = normal,
               .group = g,
               .expert = expert,
               .rule = rule});
  };
  for (const char* name : {"embedding", "layers.0", "layers.1", "layers.2", "head"})
    store.add_group(name);
  add(0, "weight", {37, 11});
  for (int g = 1; g <= 3; ++g) {
    add(g, "norm", {3});
    add(g, "proj", {40, 13});
    add(g, "experts", {4, 9, 7}, true);
    add(g, "bias", {4}, false, UpdateRule::expert_load);
    add(g, "out", {13, 31 + g});
  }
  add(4, "weight", {37, 11});
}

inline double initial(const ParamStore& store, int i, int64_t element) {
  return random_normal(rng_key(5, store.spec({i}).name), uint64_t(element));
}

// What rank `rank` finds in micro-batch `m`: of experts it has those of its own alone. Integers, so
// that every order of sums gives the same.
inline double gradient(int64_t rank, int m, int i, int64_t element) {
  return double((rank + 1) * (m + 2) * (1 + (element + i) % 7));
}

// Of experts a rank sees the ones that it computes with.
struct Seen {
  int64_t first, count;
};
inline Seen seen(const ParamStore& store, const Mesh& mesh, int i) {
  const ParamSpec& s = store.spec({i});
  if (!s.expert) return {0, s.numel()};
  const int64_t n = s.numel() / mesh.shape().expert;
  return {mesh.expert_rank() * n, n};
}

// Blocks forward and backward as a tape does it; the head's weight gradient in the forward pass.
class Passes {
 public:
  Passes(ShardedStore& store, const Mesh& mesh, double scale)
      : store_(store), mesh_(mesh), scale_(scale) {}

  void micro_batch(int m) {
    for (int g = 0; g < kGroups; ++g) {
      store_.acquire(g, Pass::forward);
      check_values(g);
      if (g == kGroups - 1) {
        store_.acquire(g, Pass::backward);
        write(g, m);
        store_.release(g, Pass::backward);
      }
      store_.release(g, Pass::forward);
    }
    for (int g = kGroups - 1; g >= 0; --g) {
      store_.acquire(g, Pass::backward);
      check_values(g);
      if (g != kGroups - 1) write(g, m);
      store_.release(g, Pass::backward);
    }
  }

 private:
  template <class Body>
  void each(int group, Body body) {
    for (int i = 0; i < store_.size(); ++i)
      if (store_.spec({i}).group == group) body(i);
  }
  void check_values(int group) {
    each(group, [&](int i) {
      const Tensor v = store_.value({i});
      const Seen s = seen(store_, mesh_, i);
      ASSERT_EQ(v.numel(), s.count) << store_.spec({i}).name;
      ASSERT_EQ(v.rank, int(store_.spec({i}).shape.size()));
      for (int64_t e = 0; e < s.count; ++e)
        ASSERT_EQ(v.as<double>()[e], scale_ * initial(store_, i, s.first + e))
            << store_.spec({i}).name << " element " << s.first + e << " on rank " << mesh_.rank();
    });
  }
  // Some gradients in two parts; in the second micro-batch layers.1 has none for its last weight.
  void write(int group, int m) {
    each(group, [&](int i) {
      if (store_.spec({i}).rule != UpdateRule::gradient || left_out(i, m)) return;
      const Seen s = seen(store_, mesh_, i);
      for (int part = 0; part < 2; ++part) {
        const Grad g = store_.grad({i});
        for (int64_t e = 0; e < s.count; ++e) {
          const double x = gradient(mesh_.rank(), m, i, s.first + e) / 2;
          double& to = g.t.as<double>()[e];
          to = g.add ? to + x : x;
        }
      }
    });
  }

 public:
  bool left_out(int i, int m) const { return store_.spec({i}).name == "layers.1.out" && m == 1; }

 private:
  ShardedStore& store_;
  const Mesh& mesh_;
  double scale_;
};

}  // namespace sluice::test
