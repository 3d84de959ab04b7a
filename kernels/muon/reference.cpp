// kernels/muon/reference.cpp -- one matrix at a time, in f64, stored with its small side as rows;
// never optimised.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/muon/scratch.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

using Vec = std::vector<double>;

// c [I, J] = sum over k of a[i, k] b(k, j).
template <class B>
static Vec product(const Vec& a, int64_t I, int64_t J, int64_t K, B b) {
  Vec c(size_t(I * J), 0);
  for (int64_t i = 0; i < I; ++i)
    for (int64_t j = 0; j < J; ++j)
      for (int64_t k = 0; k < K; ++k) c[size_t(i * J + j)] += a[size_t(i * K + k)] * b(k, j);
  return c;
}

// x [s, l], s <= l.
static Vec newton_schulz(Vec x, int64_t s, int64_t l, int64_t steps) {
  double norm = 0;
  for (const double e : x) norm += e * e;
  norm = std::sqrt(norm);
  if (norm == 0) return x;
  for (double& e : x) e /= norm;
  for (int64_t step = 0; step < steps; ++step) {
    const auto at = [l](const Vec& v, int64_t r, int64_t c) { return v[size_t(r * l + c)]; };
    const Vec gram = product(x, s, s, l, [&](int64_t k, int64_t j) { return at(x, j, k); });
    const Vec once = product(gram, s, l, s, [&](int64_t k, int64_t j) { return at(x, k, j); });
    const Vec twice = product(gram, s, l, s, [&](int64_t k, int64_t j) { return at(once, k, j); });
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = kMuonA * x[i] + kMuonB * once[i] + kMuonC * twice[i];
  }
  return x;
}

// Element i of M after the step; stored, which may round it.
template <class T>
static double move(const MuonMomentum& a, int64_t i, double g) {
  if (a.m.dtype == DType::bf16) {
    uint16_t& m = static_cast<uint16_t*>(a.m.data)[i];
    const double M = a.momentum * double(widen_bf16(m)) + g;
    const uint32_t random = rounding_bits(a.rounding.key, a.rounding.begin + i, a.state->step);
    m = round_stochastic(float(M), random & 0xffff);
    return M;
  }
  T& m = a.m.as<T>()[i];
  const double M = a.momentum * m + g;
  m = T(M);
  return M;
}

void muon_momentum(const Context&, const MuonMomentum& a) {
  if (a.state->skip) return;
  for_float_type(a.grad, [&]<class T>(T) {
    for (int64_t i = 0; i < a.grad.dim(0); ++i) {
      const double g = double(a.grad.as<T>()[i]) * a.state->grad_scale;
      const double M = move<T>(a, i, g);
      a.u.as<T>()[i] = T(a.momentum * M + g);
    }
  });
}

void orthogonalize(const Context&, const Orthogonalize& a, const MuonScratch&) {
  if (a.state->skip) return;
  const int64_t m = a.x.dim(1), n = a.x.dim(2), s = std::min(m, n), l = std::max(m, n);
  for_float_type(a.x, [&]<class T>(T) {
    for (int64_t b = 0; b < a.x.dim(0); ++b) {
      // Where element (r, c) is in a matrix stored with its small side as rows.
      const auto place = [&](int64_t r, int64_t c) {
        return size_t(m <= n ? r * l + c : c * l + r);
      };
      Vec u(size_t(m * n));
      for (int64_t i = 0; i < m * n; ++i) u[place(i / n, i % n)] = double(a.x.row<T>(b)[i]);
      const Vec x = newton_schulz(std::move(u), s, l, a.ns_steps);
      for (int64_t i = 0; i < m * n; ++i) a.x.row<T>(b)[i] = T(x[place(i / n, i % n)]);
    }
  });
}

void muon_apply(const Context&, const MuonApply& a) {
  if (a.state->skip) return;
  const double lr = a.state->lr * a.lr_scale;
  for_float_type(a.param, [&]<class T>(T) {
    for (int64_t i = 0; i < a.param.dim(0); ++i) {
      T& p = a.param.as<T>()[i];
      p = T(p - lr * (a.weight_decay * p + muon_size(a.longer) * double(a.x.as<T>()[i])));
    }
  });
}

}  // namespace sluice::reference
