// kernels/sample/cpu.cpp -- one pass for the weights, a partial order only if something is cut off.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/fast_math.h"
#include "kernels/sample/sample.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"
#include "kernels/tensor/rng.h"

namespace sluice::cpu {

namespace {

constexpr int64_t kBlock = 64;  // ids whose mass is summed before one of them is looked for

template <class T>
class Row {
 public:
  Row(const T* logits, int64_t V, const SampleRule& rule)
      : x_(logits), V_(V), rule_(rule), w_(size_t(V)) {
    bool nan = false;
    top_ = x_[0];
    for (int64_t i = 0; i < V; ++i) {
      nan |= x_[i] != x_[i];
      top_ = x_[i] > top_ ? x_[i] : top_;
    }
    SLUICE_CHECK(!nan && std::isfinite(top_), "of ", V, " logits the largest is ", top_,
                 nan ? " and one is NaN" : "");
    inverse_ = T(1 / (rule.temperature > 0 ? rule.temperature : 1.0));
    for (int64_t i = 0; i < V; ++i) w_[size_t(i)] = fast_exp((x_[i] - top_) * inverse_);
  }

  void draw(int32_t& token, float& logprob) {
    if (rule_.temperature > 0) keep();
    const double total = mass();
    const int64_t id = rule_.temperature > 0 ? invert(total) : std::find(x_, x_ + V_, top_) - x_;
    token = int32_t(id);
    logprob = float(double((x_[id] - top_) * inverse_) - std::log(total));
  }

 private:
  double block_mass(int64_t begin) const {
    const T* w = &w_[size_t(begin)];
    return lane_sum<T>(std::min(kBlock, V_ - begin), [&](int64_t i) { return w[i]; });
  }
  double mass() const {
    double sum = 0;
    for (int64_t b = 0; b < V_; b += kBlock) sum += block_mass(b);
    return sum;
  }

  // Weight 0 for what top_k and top_p cut off.
  void keep() {
    const auto before = [&](int64_t a, int64_t b) {
      return x_[a] > x_[b] || (x_[a] == x_[b] && a < b);
    };
    const bool cut_k = rule_.top_k > 0 && rule_.top_k < V_, cut_p = rule_.top_p < 1;
    if (!cut_k && !cut_p) return;
    std::vector<int64_t> ids;
    // With top_k = all, ids that weigh less than (1 - p) / V of the mass have less than 1 - p of it
    // together, so that top_p is reached without them; half of it leaves room for rounding.
    const double least = cut_k ? 0 : mass() * (1 - rule_.top_p) / (2 * double(V_));
    for (int64_t i = 0; i < V_; ++i)
      if (cut_k || double(w_[size_t(i)]) >= least) ids.push_back(i);
    if (cut_k) {
      std::nth_element(ids.begin(), ids.begin() + rule_.top_k - 1, ids.end(), before);
      ids.resize(size_t(rule_.top_k));
    }
    if (cut_p) {
      double sum = 0, whole = 0;
      for (const int64_t id : ids) whole += double(w_[size_t(id)]);
      if (!cut_k) whole = mass();
      std::sort(ids.begin(), ids.end(), before);
      for (size_t n = 0; n < ids.size(); ++n)
        if ((sum += double(w_[size_t(ids[n])])) >= rule_.top_p * whole) ids.resize(n + 1);
    }
    std::vector<T> kept(w_.size(), T(0));
    for (const int64_t id : ids) kept[size_t(id)] = w_[size_t(id)];
    w_.swap(kept);
  }

  int64_t invert(double total) const {
    double left = total * random_uniform(rule_.key, uint64_t(rule_.position));
    int64_t last = 0;  // of nonzero weight: where rounding may leave us
    for (int64_t b = 0; b < V_; b += kBlock) {
      const double block = block_mass(b);
      if (block == 0) continue;
      const bool here = left < block;
      for (int64_t i = b; i < std::min(V_, b + kBlock); ++i) {
        if (w_[size_t(i)] > 0) last = i;
        if (here && (left -= double(w_[size_t(i)])) < 0) return i;
      }
      if (here) return last;
      left -= block;
    }
    return last;
  }

  const T* x_;
  int64_t V_;
  const SampleRule& rule_;
  T top_, inverse_;
  std::vector<T> w_;  // [V]
};

}  // namespace

void sample(const Context& ctx, const Sample& a) {
  const int64_t V = a.logits.dim(1);
  for_float_type(a.logits, [&]<class T>(T) {
    parallel_for(ctx, a.logits.dim(0), [&](int64_t n) {
      Row<T>(a.logits.row<T>(n), V, a.rules[size_t(n)])
          .draw(a.token.as<int32_t>()[n], a.logprob.as<float>()[n]);
    });
  });
}

}  // namespace sluice::cpu
