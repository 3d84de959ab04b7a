// tests/support/cut_store.h -- shards without a model: each rank has a range of every parameter,
// cut from one flat buffer a group of parameters at any element. For what acts on shards alone.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "model/autograd/param_store.h"

namespace sluice::test {

class CutStore : public ParamStore {
 public:
  // Of a buffer of n elements rank r has cuts[r] n .. cuts[r + 1] n. Experts: of E of them this
  // rank's part `expert_rank` of `expert_ranks` is cut so by expert_cuts, for rank r of its group.
  struct Cut {
    std::vector<double> cuts;
    int rank = 0;
    std::vector<double> expert_cuts{0, 1};
    int expert_rank_in_group = 0, expert_rank = 0, expert_ranks = 1;
  };
  CutStore(DType dtype, Cut cut) : dtype_(dtype), cut_(std::move(cut)) {}

  void allocate() override {
    std::vector<int64_t> begin(static_cast<size_t>(size()), 0),
        length(static_cast<size_t>(2 * groups()), 0);
    for (int i = 0; i < size(); ++i) {
      int64_t& n = length[segment(i)];
      begin[size_t(i)] = n;
      n += here(i);
    }
    for (int i = 0; i < size(); ++i) {
      const bool e = spec({i}).expert;
      const auto& cuts = e ? cut_.expert_cuts : cut_.cuts;
      const size_t r = size_t(e ? cut_.expert_rank_in_group : cut_.rank);
      const double n = double(length[segment(i)]);
      const int64_t at = begin[size_t(i)], end = at + here(i);
      const int64_t from = std::clamp(int64_t(cuts[r] * n), at, end),
                    to = std::clamp(int64_t(cuts[r + 1] * n), at, end);
      const int64_t first = e ? cut_.expert_rank * here(i) : 0;
      memory_.emplace_back(dtype_, std::initializer_list<int64_t>{to - from});
      memory_.emplace_back(dtype_, std::initializer_list<int64_t>{to - from});
      const Tensor master = memory_[memory_.size() - 2].view(), grad = memory_.back().view();
      shards_.push_back({{i},
                         first + from - at,
                         master,
                         spec({i}).rule == UpdateRule::gradient ? grad : Tensor{}});
    }
  }
  void plan() override {}  // only ever allocated
  StoreBytes bytes() const override { return {}; }
  void acquire(int, Pass, const Context&) override {}
  void release(int, Pass, const Context&) override {}
  Tensor value(ParamId) override { return {}; }
  Grad grad(ParamId) override { return {}; }
  void start_step() override {}
  void finish_gradients(const Context& = {}) override {}
  const std::vector<Shard>& shards() const override { return shards_; }

 private:
  size_t segment(int i) const { return size_t(2 * spec({i}).group + spec({i}).expert); }
  int64_t here(int i) const {
    return spec({i}).numel() / (spec({i}).expert ? cut_.expert_ranks : 1);
  }

  DType dtype_;
  Cut cut_;
  std::vector<Buffer> memory_;
  std::vector<Shard> shards_;
};

}  // namespace sluice::test
