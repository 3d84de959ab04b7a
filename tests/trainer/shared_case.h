// tests/trainer/shared_case.h -- parameters cut over ranks in several ways; every element's value
// is known, so that any rank can say whether its own are right.
#pragma once

#include <algorithm>

#include "kernels/comm/local_comm.h"
#include "tests/support/tiny_model.h"
#include "tests/trainer/checkpoint_case.h"
#include "trainer/checkpoint/tensors.h"
#include "trainer/checkpoint/writer.h"
#include "trainer/loop/model_file.h"

namespace sluice::test {

// `replicate` times the whole; experts first over groups of `expert` ranks, then over what is left.
struct Mesh {
  int ranks = 1, replicate = 1, expert = 1;
};
inline std::string to_string(const Mesh& m) {
  return cat(m.ranks, " ranks (", m.replicate, " replicas, EP ", m.expert, ")");
}

// The parameters of a rank, and nothing to compute with.
class PartStore : public ParamStore {
 public:
  PartStore(const ParamStore& like, Mesh mesh, int rank) : mesh_(mesh), rank_(rank) {
    for (int g = 0; g < like.groups(); ++g) add_group(like.group_name(g));
    for (int i = 0; i < like.size(); ++i) add(like.spec({i}));
    allocate();
  }
  void allocate() override {
    int64_t owned = 0;
    for (int i = 0; i < size(); ++i) owned += range(i).second;
    master_ = Buffer(DType::f32, {owned});
    grad_ = Buffer(DType::f32, {owned});
    int64_t at = 0;
    for (int i = 0; i < size(); ++i) {
      const auto [begin, n] = range(i);
      shards_.push_back({{i}, begin, master_.view().rows(at, n), grad_.view().rows(at, n)});
      at += n;
    }
  }
  const std::vector<Shard>& shards() const override { return shards_; }
  void plan() override {}  // only ever allocated
  StoreBytes bytes() const override { return {}; }
  void acquire(int, Pass, const Context&) override {}
  void release(int, Pass, const Context&) override {}
  Tensor value(ParamId) override { return {}; }
  Grad grad(ParamId) override { return {}; }
  void start_step() override {}
  void finish_gradients(const Context& = {}) override {}

 private:
  std::pair<int64_t, int64_t> range(int i) const {  // begin, count
    const ParamSpec& s = spec({i});
    const int64_t group = mesh_.ranks / mesh_.replicate, r = rank_ % group;
    if (!s.expert || mesh_.expert == 1) return cut(0, s.numel(), r, group);
    const int64_t local = s.numel() / mesh_.expert;
    return cut(r % mesh_.expert * local, local, r / mesh_.expert, group / mesh_.expert);
  }
  static std::pair<int64_t, int64_t> cut(int64_t first, int64_t n, int64_t part, int64_t parts) {
    const int64_t each = (n + parts - 1) / parts, begin = std::min(n, part * each);
    return {first + begin, std::min(n, begin + each) - begin};
  }

  Mesh mesh_;
  int rank_;
  Buffer master_, grad_;
  std::vector<Shard> shards_;
};

// What a rank saves and loads.
struct RankState {
  RankState(const ParamStore& like, Mesh mesh, int rank)
      : store(like, mesh, rank), optimizer({}, store) {}

  std::vector<NamedTensor> weights() const { return named_weights(store); }
  std::vector<NamedTensor> moments() const { return named_moments(store, optimizer); }
  void set(int64_t step) const {
    each([](float& x, float want) { x = want; }, step);
  }
  int64_t wrong(int64_t step) const {  // elements
    int64_t count = 0;
    each([&](float& x, float want) { count += x != want; }, step);
    return count;
  }

  PartStore store;
  Optimizer optimizer;

 private:
  template <class F>
  void each(const F& f, int64_t step) const {
    for (const auto& list : {weights(), moments()})
      for (const NamedTensor& n : list) {
        const uint64_t key = std::hash<std::string>()(n.name) + uint64_t(step);
        for (int64_t i = 0; i < n.t.numel(); ++i)
          f(n.t.as<float>()[i], float(random_u64(key, uint64_t(n.begin + i)) >> 44));
      }
  }
};

struct Model {
  Model() : lm(config(), params) { params.plan(); }
  static LmConfig config() {
    LmConfig c = tiny_moe_config();
    c.moe.num_experts = 8;
    return c;
  }
  PlainStore params{DType::f32};
  Lm lm;
};

}  // namespace sluice::test
