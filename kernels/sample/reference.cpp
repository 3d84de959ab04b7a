// kernels/sample/reference.cpp -- the definition: everything sorted, in f64; never optimised.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/sample/sample.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/rng.h"

namespace sluice::reference {

template <class T>
static void sample_row(const T* logits, int64_t V, const SampleRule& rule, int32_t& token,
                       float& logprob) {
  std::vector<int64_t> ids(static_cast<size_t>(V));
  std::iota(ids.begin(), ids.end(), 0);
  for (const int64_t i : ids) SLUICE_CHECK(!std::isnan(logits[i]), "logit ", i, " is NaN");
  std::stable_sort(ids.begin(), ids.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  const double top = logits[ids[0]], temperature = rule.temperature > 0 ? rule.temperature : 1;
  SLUICE_CHECK(std::isfinite(top), "the largest logit is ", top);
  const auto weight = [&](int64_t id) { return std::exp((logits[id] - top) / temperature); };
  const auto mass = [&] {
    double sum = 0;
    for (const int64_t id : ids) sum += weight(id);
    return sum;
  };

  int64_t chosen = ids[0];
  if (rule.temperature > 0) {
    if (rule.top_k > 0 && rule.top_k < V) ids.resize(size_t(rule.top_k));
    const double enough = rule.top_p * mass();
    double sum = 0;
    for (size_t n = 0; n < ids.size() && rule.top_p < 1; ++n)
      if ((sum += weight(ids[n])) >= enough) ids.resize(n + 1);
    std::sort(ids.begin(), ids.end());
    double left = mass() * random_uniform(rule.key, uint64_t(rule.position));
    for (const int64_t id : ids) {
      if (weight(id) > 0) chosen = id;  // the last one, should rounding leave something
      if ((left -= weight(id)) < 0) break;
    }
  }
  token = int32_t(chosen);
  logprob = float((logits[chosen] - top) / temperature - std::log(mass()));
}

void sample(const Context&, const Sample& a) {
  for_float_type(a.logits, [&]<class T>(T) {
    for (int64_t n = 0; n < a.logits.dim(0); ++n)
      sample_row<T>(a.logits.row<T>(n), a.logits.dim(1), a.rules[size_t(n)],
                    a.token.as<int32_t>()[n], a.logprob.as<float>()[n]);
  });
}

}  // namespace sluice::reference
