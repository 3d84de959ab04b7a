// tests/kernels/kda_cases.h -- the cases of the KDA contract: what a back end must get right, each
// for the error that it catches.
//
// q, k, v, gate and beta logits, states and cotangents are N(0, 1), K = 32 and V = 24, unless a
// case says otherwise.
#pragma once

#include "tests/kernels/kda_problem.h"

namespace sluice::test {

struct KdaCase {
  int number;  // a family; a row of the table is the worst of the problems with one `what`
  std::string what;
  KdaShape shape;
  std::function<void(KdaProblem&)> prepare = [](KdaProblem&) {};
};

inline double noise(uint64_t seed, int64_t n, int64_t h, int64_t d) {
  return random_uniform(seed, uint64_t((n * 97 + h) * 1031 + d));
}

inline void scale(const Tensor& t, double by) {
  for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, float(by * element(t, i)));
}

// Key = cosine * (a fixed direction) + the rest at random.
inline void similar_keys(KdaProblem& p, double cosine) {
  const int64_t K = p.shape.K, N = p.shape.N(), H = p.shape.H;
  for (int64_t i = 0; i < N * H; ++i)
    for (int64_t d = 0; d < K; ++d)
      set_element(p.k.view(), i * K + d,
                  float(cosine * random_normal(7, uint64_t(d)) +
                        std::sqrt(1 - cosine * cosine) * random_normal(8, uint64_t(i * K + d))));
}

namespace kda_cases {

inline const KdaParams kBounded{GateLaw::bounded, -5, 1};
inline const KdaParams kTwice{GateLaw::softplus, -5, 2};

inline KdaShape shape(std::vector<int32_t> cu, KdaParams params = {}, int64_t H = 2, int64_t HV = 2,
                      int64_t K = 32, int64_t V = 24) {
  return {H, HV, K, V, std::move(cu), params};
}
inline std::vector<int32_t> documents(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> cu{0};
  for (const int32_t n : lengths) cu.push_back(cu.back() + n);
  return cu;
}

// -5 sigmoid(N(0, 1)), the gate of published benchmarks.
inline void benchmark_gate(KdaProblem& p) {
  fill(p.A_log.view(), 0);
  fill(p.dt_bias.view(), 0);
}
inline void slow_gate(KdaProblem& p) {
  p.decay([](int64_t n, int64_t h, int64_t d) { return -0.005 - 0.475 * noise(1, n, h, d); });
}
// Inputs of FLA's tests: q, k, v in (0, 1), so that keys are alike; g = log sigmoid(N(0, 1)), of
// which a share is -1000.
inline void fla_inputs(KdaProblem& p, double masked) {
  for (const Tensor& t : {p.q.view(), p.k.view(), p.v.view()})
    for (int64_t i = 0; i < t.numel(); ++i)
      set_element(t, i, float(random_uniform(11, uint64_t(i))));
  p.decay([masked](int64_t n, int64_t h, int64_t d) {
    if (noise(3, n, h, d) < masked) return -1000.0;
    return -std::log1p(std::exp(-random_normal(12, uint64_t((n * 97 + h) * 1031 + d))));
  });
}

inline void add_gates(std::vector<KdaCase>& all) {
  for (const int32_t T : {2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129})
    all.push_back({2, "T 2..129 H2", shape({0, T}, kBounded)});
  all.push_back({3, "B2 T500 H3, q k v in (0,1)", shape({0, 500, 1000}, {}, 3, 3),
                 [](KdaProblem& p) { fla_inputs(p, 0); }});
  all.push_back({3, "B2 T1000 H3, half masked", shape({0, 1000, 2000}, {}, 3, 3),
                 [](KdaProblem& p) { fla_inputs(p, 0.5); }});
  const std::vector<int32_t> four{0, 1024, 2048, 3072, 4096};
  all.push_back({4, "B4 T1024 H4, -5 sigmoid", shape(four, kBounded, 4, 4), benchmark_gate});
  all.push_back({4, "T300 H1 K128 V130, -5 sigmoid", shape({0, 300}, kBounded, 1, 1, 128, 130),
                 benchmark_gate});
  all.push_back({5, "B4 T1024 H4, slow", shape(four, {}, 4, 4), slow_gate});
  all.push_back({5, "T300 H1 K128 V130, slow", shape({0, 300}, {}, 1, 1, 128, 130), slow_gate});
  all.push_back({6, "T4096 H2, half 0 half -5", shape({0, 4096}), [](KdaProblem& p) {
                   p.decay([](int64_t, int64_t, int64_t d) { return d % 2 ? -5.0 : 0.0; });
                   scale(p.s0.view(), 100);
                 }});
  for (const double g : {0.0, -1e-8})  // at 0 the gate law passes no gradient on
    all.push_back({7, cat("T1024 H2, g = ", g), shape({0, 1024}),
                   [g](KdaProblem& p) { p.decay([g](int64_t, int64_t, int64_t) { return g; }); }});
  all.push_back({8, "T1024 H2, g = -5", shape({0, 1024}, kBounded),
                 [](KdaProblem& p) { fill(p.g.view(), 500); }});
  all.push_back({8, "T1024 H2, g near -5", shape({0, 1024}),
                 [](KdaProblem& p) { p.decay([](int64_t, int64_t, int64_t) { return -5.0; }); }});
  all.push_back({9, "T1024 H2, A e^2.8, g to -100", shape({0, 1024}), [](KdaProblem& p) {
                   fill(p.A_log.view(), float(2.8));
                   KdaProblem::normal(p.g.view(), 13, 2);
                 }});
  all.push_back({9, "T1024 H2, tokens of -1000", shape({0, 1024}), [](KdaProblem& p) {
                   p.decay([](int64_t n, int64_t h, int64_t d) {
                     return noise(3, n, 0, 0) < 0.1 ? -1000 : -0.1 * noise(4, n, h, d);
                   });
                 }});
}

inline void add_keys(std::vector<KdaCase>& all) {
  all.push_back(
      {10, "T300 beta = 0", shape({0, 300}), [](KdaProblem& p) { fill(p.beta.view(), -1000); }});
  all.push_back(
      {10, "T300 beta = 1", shape({0, 300}), [](KdaProblem& p) { fill(p.beta.view(), 1000); }});
  all.push_back({10, "T300 beta 0 or 1", shape({0, 300}), [](KdaProblem& p) {
                   for (int64_t i = 0; i < p.beta.view().numel(); ++i)
                     set_element(p.beta.view(), i, noise(5, i, 0, 0) < 0.5 ? -1000 : 1000);
                 }});
  all.push_back({10, "T300 beta near 2", shape({0, 300}, kTwice),
                 [](KdaProblem& p) { KdaProblem::normal(p.beta.view(), 9, 0.5, 4); }});
  for (const double cosine : {1.0, 0.98, 0.9})
    all.push_back({11, cat("T150 keys of cosine ", cosine, ", beta 1"), shape({0, 150}),
                   [cosine](KdaProblem& p) {
                     p.decay([](int64_t, int64_t, int64_t) { return -0.02; });
                     fill(p.beta.view(), 1000);
                     similar_keys(p, cosine);
                   }});
  all.push_back({11, "T150 the same of norm 0.9", shape({0, 150}), [](KdaProblem& p) {
                   p.decay([](int64_t n, int64_t h, int64_t d) {
                     return -0.012 - 0.022 * noise(14, n, h, d);
                   });
                   fill(p.beta.view(), 1000);
                   similar_keys(p, 0.98);  // and a length that the norm's epsilon makes 0.9
                   scale(p.k.view(), std::sqrt(4.263e-6 / double(p.shape.K)));
                 }});
  all.push_back({12, "T256 keys one-hot of 24, beta 1, g 0", shape({0, 256}), [](KdaProblem& p) {
                   p.decay([](int64_t, int64_t, int64_t) { return 0.0; });
                   fill(p.beta.view(), 1000);
                   for (const Tensor& t : {p.q.view(), p.k.view()})
                     for (int64_t i = 0; i < t.numel(); ++i) {
                       const int64_t n = i / (p.shape.H * p.shape.K);
                       set_element(t, i, i % p.shape.K == n * 5 % 24 ? 1000 : 0);
                     }
                 }});
  all.push_back({13, "T300 norms 1e-4 1 1e3 0", shape({0, 300}, kBounded), [](KdaProblem& p) {
                   for (const Tensor& t : {p.q.view(), p.k.view()})
                     for (int64_t i = 0; i < t.numel(); ++i) {
                       const int64_t row = i / (t.dim(1) * t.dim(2)) % 4;
                       const double by[] = {1e-4, 1, 1e3, 0};  // the last: all-zero rows
                       set_element(t, i, float(by[row] * element(t, i)));
                     }
                 }});
  all.push_back({13, "T100 K1 V1, no direction left", shape({0, 100}, kBounded, 1, 1, 1, 1)});
  for (const double by : {1e3, 1e-3})
    all.push_back({14, cat("T300 v, states, cotangents ", by), shape({0, 300}, kBounded),
                   [by](KdaProblem& p) {
                     for (const Tensor& t : {p.v.view(), p.d_o.view(), p.s0.view(), p.ds1.view()})
                       scale(t, by);
                   }});
}

inline void add_paths(std::vector<KdaCase>& all) {
  all.push_back({1, "T1 H1", shape({0, 1}, {}, 1, 1)});
  all.push_back(
      {1, "T1 H1, no S0", shape({0, 1}, {}, 1, 1), [](KdaProblem& p) { p.with_initial = false; }});
  const KdaShape path = shape({0, 150});
  all.push_back({15, "T150 dO = 0", path, [](KdaProblem& p) { fill(p.d_o.view(), 0); }});
  all.push_back({15, "T150 dS_T = 0", path, [](KdaProblem& p) { fill(p.ds1.view(), 0); }});
  all.push_back({15, "T150 no S0", path, [](KdaProblem& p) { p.with_initial = false; }});
  all.push_back({15, "T150 no final state", path, [](KdaProblem& p) { p.with_final = false; }});
  all.push_back({15, "T150 neither", path, [](KdaProblem& p) { p.with_states = false; }});

  all.push_back({16, "[0,15]", shape({0, 15}, kBounded)});
  all.push_back({16, "[0,256,500,1000]", shape({0, 256, 500, 1000}, kBounded)});
  all.push_back({16, "[0,15,100,300,1200,2000]", shape({0, 15, 100, 300, 1200, 2000})});
  for (const std::vector<int32_t>& lengths : std::vector<std::vector<int32_t>>{
           {16}, {16, 16}, {4, 8, 12}, {17, 33, 65}, {20, 50, 100}, {64, 128, 256}})
    all.push_back({16, "six packings, [16] to [64,128,256]", shape(documents(lengths), kBounded)});
  all.push_back({16, "[1300,547,2048,963,271,3063] H1",
                 shape(documents({1300, 547, 2048, 963, 271, 3063}), kBounded, 1, 1)});
  all.push_back({16, "17 documents of 8192 tokens H1",
                 shape(documents({247, 452, 283, 706, 12, 1409, 88, 531, 640, 905, 37, 1024, 365,
                                  150, 777, 64, 502}),
                       {}, 1, 1)});
  std::vector<int32_t> tiny;
  for (int64_t d = 0; d < 512; ++d)
    tiny.push_back(d % 9 == 4 ? 0 : 1 + int32_t(36 * noise(6, d, 0, 0)));
  all.push_back({17, "512 documents of 0..40", shape(documents(tiny), kBounded)});
  all.push_back({19, "T150 H2 HV4", shape({0, 100, 150}, {}, 2, 4)});
  all.push_back({19, "T150 H2 HV8", shape({0, 150}, kBounded, 2, 8)});
  all.push_back({19, "T150 H16 HV32", shape({0, 150}, {}, 16, 32)});
}

}  // namespace kda_cases

inline std::vector<KdaCase> kda_contract_cases() {
  std::vector<KdaCase> all;
  kda_cases::add_gates(all);
  kda_cases::add_keys(all);
  kda_cases::add_paths(all);
  std::stable_sort(all.begin(), all.end(),
                   [](const KdaCase& a, const KdaCase& b) { return a.number < b.number; });
  return all;
}

}  // namespace sluice::test
