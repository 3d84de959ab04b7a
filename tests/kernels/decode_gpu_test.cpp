// tests/kernels/decode_gpu_test.cpp -- the CUDA back ends of generation against the f64 references
// fed the rounded inputs: one step of the recurrences, states of the convolution, cached attention,
// rows by themselves, sampling.
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/kda/kda.h"
#include "kernels/linear/linear.h"
#include "kernels/mla_cache/mla_cache.h"
#include "kernels/sample/sample.h"
#include "kernels/short_conv/short_conv.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

// A tensor on the host (f64, values that the GPU's type has) and on the GPU.
struct Both {
  Both(DType type, std::initializer_list<int64_t> shape, uint64_t seed, double scale = 1,
       double mean = 0)
      : host(DType::f64, shape), narrow(type, shape), gpu(type, shape, Device::cuda) {
    fill_normal(host.view(), seed, scale);
    for (int64_t i = 0; i < host.view().numel(); ++i)
      set_element(host.view(), i, element(host.view(), i) + mean);
    upload();
  }
  // After the host's values were changed.
  void upload() const {
    copy_elements(host.view(), narrow.view());
    copy_elements(narrow.view(), host.view());
    copy(narrow.view(), gpu.view());
  }
  // What the GPU has.
  Tensor download() const {
    copy(gpu.view(), narrow.view());
    return narrow.view();
  }
  Buffer host, narrow, gpu;
};

struct Ints {
  explicit Ints(const std::vector<int32_t>& v)
      : values(v),
        host(DType::i32, {int64_t(v.size())}),
        gpu(DType::i32, {int64_t(v.size())}, Device::cuda) {
    std::copy(v.begin(), v.end(), host.view().as<int32_t>());
    copy(host.view(), gpu.view());
  }
  std::vector<int32_t> values;
  Buffer host, gpu;
};
std::vector<int32_t> boundaries(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> cu{0};
  for (const int32_t n : lengths) cu.push_back(cu.back() + n);
  return cu;
}

// |got - want| over max(|want|, rms(want)).
void expect_near(const Tensor& got, const Tensor& want, double bound, const std::string& what,
                 double rms = INFINITY) {
  const ErrorStats e = compare_gpu({}, got, want, bound);
  std::printf("  %s: rms error %.1e, worst %.2f of the bound\n", what.c_str(), e.rms, e.worst);
  EXPECT_LE(e.worst, 1) << what << ": " << e;
  EXPECT_LE(e.rms, rms) << what << ": " << e;
}

void expect_same(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.bytes(), b.bytes());
  EXPECT_EQ(std::memcmp(a.data, b.data, size_t(a.bytes())), 0) << what;
}

using DecodeGpu = GpuTest;

struct KdaStep {
  KdaStep(const std::vector<int32_t>& lengths, int64_t D, uint64_t seed)
      : cu(boundaries(lengths)),
        N(cu.values.back()),
        q(DType::bf16, {N, 2, D}, seed),
        k(DType::bf16, {N, 2, D}, seed + 1),
        v(DType::bf16, {N, 4, D}, seed + 2),
        g(DType::bf16, {N, 4, D}, seed + 3),
        beta(DType::bf16, {N, 4}, seed + 4),
        A_log(DType::f32, {4}, seed + 5, 0.5),
        bias(DType::f32, {4, D}, seed + 6, 1, -2),
        state(DType::f32, {int64_t(lengths.size()), 4, D, D}, seed + 7, 0.3),
        o(DType::bf16, {N, 4, D}, 1) {}
  void run(const Context& ctx, const KdaParams& params) const {
    const bool gpu = ctx.device == Device::cuda;
    const auto of = [&](const auto& b) { return gpu ? b.gpu.view() : b.host.view(); };
    kda_forward(ctx, {.q = of(q),
                      .k = of(k),
                      .v = of(v),
                      .g = of(g),
                      .beta = of(beta),
                      .A_log = of(A_log),
                      .dt_bias = of(bias),
                      .cu_seqlens = of(cu),
                      .initial_state = of(state),
                      .o = of(o),
                      .final_state = of(state),
                      .saved = {},
                      .params = params,
                      .single = true});
  }
  Ints cu;
  int64_t N;
  Both q, k, v, g, beta, A_log, bias, state, o;
};

TEST_F(DecodeGpu, KdaStepAgreesWithReference) {
  const GpuContext& gpu = GpuContext::shared();
  for (const int64_t D : {64, 128})
    for (const GateLaw law : {GateLaw::softplus, GateLaw::bounded})
      for (const std::vector<int32_t>& lengths :
           {std::vector<int32_t>{1}, {0, 1, 1, 0, 1}, {1, 1, 1}, {0, 0}}) {
        const KdaStep p(lengths, D, 10);
        const Buffer before(p.state.narrow.view());
        copy(p.state.narrow.view(), before.view());
        const KdaParams params{.gate = law, .beta_max = law == GateLaw::bounded ? 2.0 : 1.0};
        p.run(CpuContext(Mode::reference, 1, 32 << 20), params);
        p.run(gpu, params);
        SLUICE_CUDA(cudaDeviceSynchronize());
        const std::string what = cat("D ", D, ", ", lengths.size(), " documents");
        // One rounding of o; the state is f32 throughout.
        if (p.N > 0) expect_near(p.o.download(), p.o.host.view(), 6e-3, what + ": o");
        expect_near(p.state.download(), p.state.host.view(), 1e-5, what + ": state");
        for (size_t d = 0; d < lengths.size(); ++d)
          if (lengths[d] == 0)
            expect_same(p.state.narrow.view().rows(int64_t(d), 1),
                        before.view().rows(int64_t(d), 1), what + ": idle");
      }
}

// A step of the recurrent kernel after a chunk is the chunk with one token more.
TEST_F(DecodeGpu, KdaStepsContinueChunks) {
  const GpuContext& gpu = GpuContext::shared();
  const KdaStep p({70}, 128, 30);
  const auto call = [&](int64_t begin, int64_t n, bool single, const Buffer& state,
                        const Buffer& o) {
    const Ints cu({0, int32_t(n)});
    const auto rows = [&](const Both& b) { return b.gpu.view().rows(begin, n); };
    kda_forward(gpu, {.q = rows(p.q),
                      .k = rows(p.k),
                      .v = rows(p.v),
                      .g = rows(p.g),
                      .beta = rows(p.beta),
                      .A_log = p.A_log.gpu.view(),
                      .dt_bias = p.bias.gpu.view(),
                      .cu_seqlens = cu.gpu.view(),
                      .initial_state = state.view(),
                      .o = o.view().rows(begin, n),
                      .final_state = state.view(),
                      .saved = {},
                      .params = {},
                      .single = single});
    SLUICE_CUDA(cudaDeviceSynchronize());
  };
  const Buffer whole(p.state.gpu.view()), steps(p.state.gpu.view());
  const Buffer o_whole(p.o.gpu.view()), o_steps(p.o.gpu.view());
  call(0, 70, false, whole, o_whole);
  call(0, 60, false, steps, o_steps);
  for (int64_t n = 60; n < 70; ++n) call(n, 1, true, steps, o_steps);
  const Buffer a(p.state.narrow.view()), b(p.state.narrow.view());
  copy(whole.view(), a.view()), copy(steps.view(), b.view());
  // Chunks round their operands to bf16: 2^-9 each, of terms that are some times their sum.
  expect_near(b.view(), a.view(), .05, "state", 4e-3);
  const Buffer c(p.o.narrow.view()), d(p.o.narrow.view());
  copy(o_whole.view(), c.view()), copy(o_steps.view(), d.view());
  expect_near(d.view(), c.view(), .03, "o", 4e-3);
}

TEST_F(DecodeGpu, ConvolutionGoesOnFromItsStates) {
  const GpuContext& gpu = GpuContext::shared();
  for (const int64_t W : {1, 2, 4, 7})
    for (const int64_t C : {5, 16, 520})
      for (const std::vector<int32_t>& lengths :
           {std::vector<int32_t>{1, 0, 1, 1}, {1}, {70, 1, 0, 2, 130}, {3, 0, 0}, {0}}) {
        const Ints cu(boundaries(lengths));
        const int64_t N = cu.values.back(), S = int64_t(lengths.size());
        const Both x(DType::bf16, {N, C}, 1), w(DType::bf16, {C, W}, 2),
            state(DType::bf16, {S, C, W - 1}, 3), y(DType::bf16, {N, C}, 4);
        short_conv_forward(CpuContext(Mode::reference, 1, 32 << 20),
                           {.x = x.host.view(),
                            .w = w.host.view(),
                            .cu_seqlens = cu.host.view(),
                            .initial_state = state.host.view(),
                            .y = y.host.view(),
                            .final_state = state.host.view()});
        short_conv_forward(gpu, {.x = x.gpu.view(),
                                 .w = w.gpu.view(),
                                 .cu_seqlens = cu.gpu.view(),
                                 .initial_state = state.gpu.view(),
                                 .y = y.gpu.view(),
                                 .final_state = state.gpu.view()});
        SLUICE_CUDA(cudaDeviceSynchronize());
        const std::string what = cat("W ", W, ", C ", C, ", N ", N);
        const ErrorStats e = compare_gpu({}, y.download(), y.host.view(), 8e-3);
        EXPECT_LE(e.worst, 1) << what << ": " << e;
        const Tensor left = state.download();
        for (int64_t i = 0; i < left.numel(); ++i)
          ASSERT_EQ(element(left, i), element(state.host.view(), i)) << what << " " << i;
      }
}

struct Dims {
  int64_t H, r, nope, rope, V;
  double theta;
};

// Slots that hold `past` tokens and get `fresh` ones; what lies beyond is NaN.
struct CacheCase {
  CacheCase(const std::vector<int32_t>& past, const std::vector<int32_t>& fresh, const Dims& d,
            int64_t room)
      : dims(d),
        cu(boundaries(fresh)),
        past(past),
        N(cu.values.back()),
        S(int64_t(past.size())),
        q(DType::bf16, {N, d.H, d.nope + d.rope}, 1),
        // Keys and values, and so scores, of a few units whatever r is.
        w(DType::bf16, {d.H * (d.nope + d.V), d.r}, 2, 2.4 / std::sqrt(double(d.r))),
        c(DType::bf16, {N, d.r}, 3),
        k_rope(DType::bf16, {N, d.rope}, 4),
        latents(DType::bf16, {S, room, d.r + d.rope}, 5),
        o(DType::bf16, {N, d.H, d.V}, 6) {
    for (int64_t s = 0; s < S; ++s) {
      const Tensor rows = latents.host.view().rows(s, 1).reshape({room, d.r + d.rope});
      fill(rows.rows(past[size_t(s)], room - past[size_t(s)]), NAN);
    }
    latents.upload();
  }
  void append(const Context& ctx) const {
    latent_append(ctx, {.c = of(ctx, c),
                        .k_rope = of(ctx, k_rope),
                        .cu_seqlens = of(ctx, cu),
                        .past = of(ctx, past),
                        .latents = of(ctx, latents),
                        .rope_theta = dims.theta});
  }
  MlaCached args(const Context& ctx) const {
    return {.q = of(ctx, q),
            .latents = of(ctx, latents),
            .w_kv_b = of(ctx, w),
            .cu_seqlens = of(ctx, cu),
            .past = of(ctx, past),
            .o = of(ctx, o),
            .rope_theta = dims.theta,
            .on_host = {cu.values, past.values}};
  }
  template <class B>
  static Tensor of(const Context& ctx, const B& b) {
    return ctx.device == Device::cuda ? b.gpu.view() : b.host.view();
  }
  Dims dims;
  Ints cu, past;
  int64_t N, S;
  Both q, w, c, k_rope, latents, o;
};

// Appends on both sides, takes the GPU's rows over (their rounding is not the point), attends.
void expect_cache_near(const CacheCase& p, bool decode, const std::string& what) {
  const GpuContext& gpu = GpuContext::shared();
  const CpuContext cpu(Mode::reference, 1, 64 << 20);
  p.append(cpu), p.append(gpu);
  SLUICE_CUDA(cudaDeviceSynchronize());
  const Tensor rows = p.latents.download();
  for (int64_t i = 0; i < rows.numel(); ++i) {
    const double want = element(p.latents.host.view(), i), got = element(rows, i);
    ASSERT_EQ(std::isnan(got), std::isnan(want)) << what << ": latent " << i;
    if (std::isnan(want)) continue;
    ASSERT_NEAR(got, want, 4e-3 * std::abs(want) + 4e-3) << what << " " << i;
  }
  copy_elements(rows, p.latents.host.view());
  decode ? mla_decode(cpu, p.args(cpu)) : mla_prefill(cpu, p.args(cpu));
  decode ? mla_decode(gpu, p.args(gpu)) : mla_prefill(gpu, p.args(gpu));
  SLUICE_CUDA(cudaDeviceSynchronize());
  EXPECT_EQ(gpu.arena.used(), 0);
  // Keys and values (prefill) or queries and sums of latents (decode), weights and outputs are
  // rounded to bf16: 2^-9 each, of terms that may be larger than what is left of them.
  expect_near(p.o.download(), p.o.host.view(), .04, what, 6e-3);
}

const Dims kDims[] = {{3, 64, 32, 16, 48, 0},
                      {3, 64, 32, 16, 48, 50},
                      {33, 128, 16, 8, 24, 1e4},
                      {2, 512, 128, 64, 128, 0}};

TEST_F(DecodeGpu, CachedDecodeAgreesWithReference) {
  for (const Dims& d : kDims) {
    expect_cache_near(
        CacheCase({0, 5, 63, 127, 128, 129, 255, 699, 600}, {1, 0, 1, 1, 1, 1, 1, 1, 0}, d, 700),
        true, cat("decode H ", d.H, " r ", d.r, " theta ", d.theta));
    expect_cache_near(CacheCase({699}, {1}, d, 700), true, "alone");
    expect_cache_near(CacheCase({3, 4}, {0, 0}, d, 700), true, "none");
  }
}

TEST_F(DecodeGpu, CachedPrefillAgreesWithReference) {
  for (const Dims& d : kDims)
    expect_cache_near(CacheCase({0, 0, 70, 0, 3, 64, 300}, {1, 70, 2, 0, 64, 65, 100}, d, 400),
                      false, cat("prefill H ", d.H, " r ", d.r, " theta ", d.theta));
  // Across the end of a block of keys.
  expect_cache_near(CacheCase({8150}, {70}, {1, 64, 16, 8, 16, 50}, 9000), false, "two blocks");
  for (const int32_t count : {1, 3})
    expect_cache_near(CacheCase({8192}, {count}, {2, 64, 16, 8, 16, 0}, 9000), false,
                      "at a block's end");
}

// The row of a slot has the same bits whatever the other slots hold, and in every run.
TEST_F(DecodeGpu, SlotsDoNotMeet) {
  const GpuContext& gpu = GpuContext::shared();
  const Dims d = kDims[0];
  std::vector<uint8_t> first;
  for (const std::vector<int32_t>& fresh : {std::vector<int32_t>{0, 1, 0}, {1, 1, 1}, {0, 1, 1}}) {
    CacheCase p({600, 450, 12}, fresh, d, 700);
    const int64_t row = fresh[0];  // of slot 1
    for (const Both* b : {&p.q, &p.c, &p.k_rope}) {
      const Both same(DType::bf16, {b->gpu.view().numel()}, 77);
      const Tensor own = b->gpu.view().rows(row, 1);
      copy(same.gpu.view().rows(0, own.numel()), own.reshape({own.numel()}));
    }
    p.append(gpu);
    mla_decode(gpu, p.args(gpu));
    SLUICE_CUDA(cudaDeviceSynchronize());
    const Tensor o = p.o.download().rows(row, 1);
    const auto* bytes = static_cast<const uint8_t*>(o.data);
    const std::vector<uint8_t> got(bytes, bytes + o.bytes());
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << fresh[0] << fresh[2];
  }
}

TEST_F(DecodeGpu, RowsByThemselves) {
  const GpuContext& gpu = GpuContext::shared();
  Context ctx = gpu;
  ctx.mode = Mode::batch_invariant;
  for (const auto& [D, F] :
       {std::pair<int64_t, int64_t>{8, 1}, {128, 50}, {296, 33}, {2304, 100}}) {
    const int64_t most = 150;
    const Both x(DType::bf16, {most, D}, 1), w(DType::bf16, {F, D}, 2);
    const Both all(DType::bf16, {most, F}, 3);
    linear_forward(CpuContext(Mode::reference, 1, 1 << 20),
                   {.x = x.host.view(), .w = w.host.view(), .y = all.host.view()});
    linear_forward(ctx, {.x = x.gpu.view(), .w = w.gpu.view(), .y = all.gpu.view()});
    SLUICE_CUDA(cudaDeviceSynchronize());
    expect_near(all.download(), all.host.view(), 5e-3, cat("linear ", D, " -> ", F));
    // Any rows, however many, at any place.
    for (const auto& [begin, n] : {std::pair<int64_t, int64_t>{0, 1},
                                   {7, 1},
                                   {3, 8},
                                   {9, 9},
                                   {1, 17},
                                   {5, 33},
                                   {10, 100},
                                   {4, 0}}) {
      const Both some(DType::bf16, {n, F}, 4);
      linear_forward(ctx,
                     {.x = x.gpu.view().rows(begin, n), .w = w.gpu.view(), .y = some.gpu.view()});
      SLUICE_CUDA(cudaDeviceSynchronize());
      expect_same(some.download(), all.narrow.view().rows(begin, n), cat(begin, " ", n, " of ", D));
    }
  }
}

// Logits of few different values, so that equals meet every cut.
TEST_F(DecodeGpu, SamplesAreTheReferences) {
  const GpuContext& gpu = GpuContext::shared();
  int64_t drawn = 0, different = 0;
  for (const int64_t V : {1, 29, 1000, 5000, 33000})
    for (const double spread : {0.3, 3.0, 20.0}) {
      const int64_t N = 24;
      const Both logits(DType::bf16, {N, V}, 7, spread);
      std::vector<SampleRule> rules;
      for (int64_t n = 0; n < N; ++n)
        rules.push_back({.temperature = n % 4 == 0 ? 0 : 0.5 + 0.25 * double(n % 4),
                         .top_k = n % 3 == 0 ? 0 : n * n,
                         .top_p = n % 2 == 0 ? 1 : 0.05 + 0.04 * double(n),
                         .key = 99,
                         .position = n});
      const Ints token(std::vector<int32_t>(size_t(N), -5));
      const Both logprob(DType::f32, {N}, 8);
      const Buffer want(DType::f32, {N});
      sample(CpuContext(Mode::reference, 1, 1 << 20), {.logits = logits.host.view(),
                                                       .rules = rules,
                                                       .token = token.host.view(),
                                                       .logprob = want.view()});
      sample(gpu, {.logits = logits.gpu.view(),
                   .rules = rules,
                   .token = token.gpu.view(),
                   .logprob = logprob.gpu.view()});
      SLUICE_CUDA(cudaDeviceSynchronize());
      const Buffer got(DType::i32, {N});
      copy(token.gpu.view(), got.view());
      for (int64_t n = 0; n < N; ++n) {
        ++drawn;
        if (got.view().as<int32_t>()[n] != token.host.view().as<int32_t>()[n]) {
          ++different;
          EXPECT_NE(n % 4, 0) << "greedy, V " << V;
          continue;
        }
        EXPECT_NEAR(element(logprob.download(), n), element(want.view(), n), 2e-5) << V << " " << n;
      }
    }
  std::printf("  %lld of %lld draws are not the reference's\n", static_cast<long long>(different),
              static_cast<long long>(drawn));
  // u falls within rounding (1e-7 of the mass) of a boundary, or the cut of top_p does.
  EXPECT_LE(different, 2);
}

TEST_F(DecodeGpu, LogitsThatAreNotNumbersGiveNoToken) {
  const GpuContext& gpu = GpuContext::shared();
  const Both logits(DType::bf16, {3, 100}, 7);
  set_element(logits.host.view(), 50, NAN);
  set_element(logits.host.view(), 100 + 3, -INFINITY);
  set_element(logits.host.view(), 200 + 99, INFINITY);
  logits.upload();
  const std::vector<SampleRule> rules(3);
  const Ints token({0, 0, 0});
  const Both logprob(DType::f32, {3}, 8);
  sample(gpu, {.logits = logits.gpu.view(),
               .rules = rules,
               .token = token.gpu.view(),
               .logprob = logprob.gpu.view()});
  const Buffer got(DType::i32, {3});
  copy(token.gpu.view(), got.view());
  EXPECT_EQ(got.view().as<int32_t>()[0], -1);
  EXPECT_GE(got.view().as<int32_t>()[1], 0);
  EXPECT_EQ(got.view().as<int32_t>()[2], -1);
}

}  // namespace
}  // namespace sluice::test
