// model/autograd/layer_probe.cpp -- a few rows to the host, and their figures.
#include "model/autograd/layer_probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/tensor/buffer.h"

namespace sluice {

namespace {

using Numbers = std::vector<double>;

double from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return double(x);
}

Numbers numbers(const Tensor& t) {  // dense
  const Buffer host(t.dtype, {t.numel()});
  copy(t, host.view());
  Numbers x(size_t(t.numel()));
  const auto take = [&](const auto* from) { std::copy_n(from, x.size(), x.begin()); };
  switch (t.dtype) {
    case DType::f32: take(host.view().as<float>()); break;
    case DType::f64: take(host.view().as<double>()); break;
    case DType::i32: take(host.view().as<int32_t>()); break;
    case DType::bf16:
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = from_bf16(static_cast<const uint16_t*>(host.view().data)[i]);
      break;
    default: SLUICE_CHECK(false, to_string(t));
  }
  return x;
}

// Rows that are spread evenly over t [N, C], which may be strided.
std::vector<Numbers> some_rows(const Tensor& t) {
  const int64_t N = t.dim(0), R = std::min(N, kProbedRows);
  std::vector<Numbers> rows;
  for (int64_t i = 0; i < R; ++i) rows.push_back(numbers(t.rows((2 * i + 1) * N / (2 * R), 1)));
  return rows;
}

// [HV*C], in tokens.
Numbers half_lives(const ProbedRecurrence& r) {
  const Numbers A_log = numbers(r.A_log), dt_bias = numbers(r.dt_bias);
  const std::vector<Numbers> rows = some_rows(r.g);
  const size_t channels = dt_bias.size(), C = channels / A_log.size();
  Numbers half_life(channels, 0);
  for (size_t c = 0; c < channels; ++c) {
    double decay = 0;
    for (const Numbers& g : rows)
      decay -= kda_log_decay(r.law, std::exp(A_log[c / C]), g[c] + dt_bias[c]);
    half_life[c] = std::log(2.0) * double(rows.size()) / decay;
  }
  std::sort(half_life.begin(), half_life.end());
  return half_life;
}

double beta_mean(const ProbedRecurrence& r) {
  double sum = 0, count = 0;
  for (const Numbers& row : some_rows(r.beta))
    for (const double logit : row) {
      sum += r.law.beta_max / (1 + std::exp(-logit));
      ++count;
    }
  return sum / count;
}

double state_rms(const ProbedRecurrence& r) {
  const Numbers ends = numbers(r.cu_seqlens);
  double squares = 0, count = 0;
  for (int64_t s = 0; s < r.final_states.dim(0); ++s) {
    if (ends[size_t(s)] == ends[size_t(s) + 1]) continue;
    for (const double x : numbers(r.final_states.rows(s, 1))) squares += x * x;
    count += double(r.final_states.numel() / r.final_states.dim(0));
  }
  return std::sqrt(squares / count);
}

}  // namespace

void LayerProbe::measure(int group, const ProbedRecurrence& r) {
  if (r.g.dim(0) == 0) return;
  const Numbers sorted = half_lives(r);
  const auto at = [&](double share) {
    return sorted[size_t(std::lround(share * double(sorted.size() - 1)))];
  };
  Recurrence& out = recurrences_.emplace_back();
  out.group = group;
  out.half_life_p10 = at(0.1);
  out.half_life_p50 = at(0.5);
  out.half_life_p90 = at(0.9);
  if (r.beta) out.beta_mean = beta_mean(r);
  out.state_rms = state_rms(r);
}

}  // namespace sluice
