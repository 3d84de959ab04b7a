// tests/kernels/update_gpu_test.cpp -- what changes the weights on CUDA: grad_norm, clip_factor,
// adamw, cast.
#include <gtest/gtest.h>

#include <limits>
#include <memory>

#include "kernels/adamw/adamw.h"
#include "kernels/cast/cast.h"
#include "kernels/grad_norm/grad_norm.h"
#include "tests/support/gpu_problem.h"

namespace sluice::test {
namespace {

Buffer on_gpu(const Tensor& host) {
  Tensor like = host;
  like.device = Device::cuda;
  Buffer b(like);
  copy(host, b.view());
  return b;
}
Buffer on_host(const Tensor& device) {
  Tensor like = device;
  like.device = Device::cpu;
  Buffer b(like);
  copy(device, b.view());
  return b;
}
Buffer normal(int64_t n, uint64_t seed, double stddev = 1) {
  Buffer b(DType::f32, {n});
  fill_normal(b.view(), seed, stddev);
  return b;
}
Buffer state_on_gpu(StepState& s) {
  return on_gpu(make_tensor(&s, DType::u8, Device::cpu, {sizeof s}));
}

using UpdateGpu = GpuTest;

TEST_F(UpdateGpu, AdamW) {
  const GpuContext& gpu = GpuContext::shared();
  for (int64_t n : {0, 1, 5, 1000, 700001}) {
    StepState state{.step = 3, .lr = 0.02F, .grad_scale = 0.5F};
    const Buffer p = normal(n, 1), g = normal(n, 2), m = normal(n, 3, 0.1);
    Buffer v = normal(n, 4);
    for (int64_t i = 0; i < n; ++i) v.view().as<float>()[i] *= v.view().as<float>()[i];
    const Buffer gp = on_gpu(p.view()), gg = on_gpu(g.view()), gm = on_gpu(m.view()),
                 gv = on_gpu(v.view());
    Buffer device_state = state_on_gpu(state);
    AdamW a{.param = p.view(), .grad = g.view(), .m = m.view(), .v = v.view(), .state = &state};
    a.weight_decay = 0.1, a.lr_scale = 0.5, a.eps = 1e-3;
    AdamW on = a;
    on.param = gp.view(), on.grad = gg.view(), on.m = gm.view(), on.v = gv.view();
    on.state = static_cast<const StepState*>(device_state.view().data);
    adamw(gpu, on);
    adamw(CpuContext(Mode::reference), a);
    const std::pair<Tensor, Tensor> pairs[] = {
        {gp.view(), p.view()}, {gm.view(), m.view()}, {gv.view(), v.view()}};
    for (const auto& [got, want] : pairs) {
      const ErrorStats e = compare(on_host(got).view(), want, 8);  // a handful of roundings
      EXPECT_LE(e.worst, 1) << n << ": " << e;
    }
    // A step that is skipped changes nothing.
    const Buffer before = on_host(gp.view());
    state.skip = 1;
    device_state = state_on_gpu(state);
    on.state = static_cast<const StepState*>(device_state.view().data);
    adamw(gpu, on);
    expect_same_bits(on_host(gp.view()).view(), before.view(), "skipped");
  }
}

// Shards of all sizes at once, more than a launch takes, each with a rate and a decay of its own,
// and starts that are aligned or not: what each gives alone, and the copy is its master rounded.
TEST_F(UpdateGpu, AdamWOfManyShards) {
  const GpuContext& gpu = GpuContext::shared();
  for (const int64_t gap : {0, 3}) {
    std::vector<int64_t> sizes{0, 16384, 1, 16385, 40000, 8, 0};
    for (int64_t i = 0; i < 300; ++i) sizes.push_back(1 + i * 7 % 100);
    int64_t total = 0;
    for (const int64_t n : sizes) total += gap + (n + 127) / 128 * 128;
    const Buffer p = normal(total, 1), g = normal(total, 2), m = normal(total, 3, 0.1);
    Buffer v = normal(total, 4);
    for (int64_t i = 0; i < total; ++i) v.view().as<float>()[i] *= v.view().as<float>()[i];
    StepState state{.step = 2, .lr = 0.02F, .grad_scale = 0.5F};
    const Buffer device_state = state_on_gpu(state), copies(DType::bf16, {total}, Device::cuda);
    const auto run = [&](bool together) {
      const Buffer gp = on_gpu(p.view()), gg = on_gpu(g.view()), gm = on_gpu(m.view()),
                   gv = on_gpu(v.view());
      std::vector<AdamW> list;
      int64_t at = gap;
      for (const int64_t n : sizes) {
        list.push_back({.param = gp.view().rows(at, n),
                        .grad = gg.view().rows(at, n),
                        .m = gm.view().rows(at, n),
                        .v = gv.view().rows(at, n),
                        .copy = together ? copies.view().rows(at, n) : Tensor{},
                        .state = static_cast<const StepState*>(device_state.view().data),
                        .lr_scale = 1 + 0.01 * double(list.size()),
                        .weight_decay = 0.001 * double(list.size())});
        at += gap + (n + 127) / 128 * 128;
      }
      if (together)
        adamw(gpu, list);
      else
        for (const AdamW& a : list) adamw(gpu, a);
      return on_host(gp.view());
    };
    const Buffer one_by_one = run(false), got = run(true), rounded(DType::bf16, {total});
    expect_same_bits(got.view(), one_by_one.view(), "together");
    cast({}, {.from = got.view(), .to = rounded.view()});
    const Buffer copied = on_host(copies.view());
    int64_t at = gap, changed = 0;
    for (const int64_t n : sizes) {
      for (int64_t i = at; i < at + n; ++i) {
        ASSERT_EQ(static_cast<uint16_t*>(copied.view().data)[i],
                  static_cast<uint16_t*>(rounded.view().data)[i]);
        changed += got.view().as<float>()[i] != p.view().as<float>()[i];
      }
      for (int64_t i = at + n; i < at + (n + 127) / 128 * 128; ++i)
        ASSERT_EQ(got.view().as<float>()[i], p.view().as<float>()[i]) << "between shards";
      at += gap + (n + 127) / 128 * 128;
    }
    EXPECT_GT(changed, 80000);
  }
}

TEST_F(UpdateGpu, NormAndClip) {
  const GpuContext& gpu = GpuContext::shared();
  const Buffer a = normal(1, 1), b = normal(70000, 2), c = normal(kGradNormElements, 3),
               none = normal(0, 4);
  double want = 0;
  std::vector<Buffer> memory;
  std::vector<Tensor> grads;
  for (const Buffer* t : {&a, &b, &none, &c}) {
    want += dot(t->view(), t->view());
    memory.push_back(on_gpu(t->view()));
    grads.push_back(memory.back().view());
  }
  const Buffer sum(DType::f64, {1}, Device::cuda);
  double first = 0;
  for (int i = 0; i < 3; ++i) {
    grad_norm(gpu, {.grads = grads, .sum_of_squares = sum.view()});
    const double got = *on_host(sum.view()).view().as<double>();
    EXPECT_NEAR(got, want, 1e-11 * want);  // f64 sums in another order
    if (i == 0) first = got;
    EXPECT_EQ(got, first);
  }
  // More tensors than a launch takes, none of them aligned; each element counts.
  std::vector<Tensor> ones;
  double squares = 0;
  for (int64_t i = 0; i < 700; ++i) ones.push_back(memory[1].view().rows(1 + 97 * i, i % 95));
  for (const Tensor& t : ones) {
    const Buffer host = on_host(t);
    squares += dot(host.view(), host.view());
  }
  grad_norm(gpu, {.grads = ones, .sum_of_squares = sum.view()});
  EXPECT_NEAR(*on_host(sum.view()).view().as<double>(), squares, 1e-11 * squares);

  StepState state{.step = 7, .lr = 2};
  const Buffer device_state = state_on_gpu(state);
  const auto clip = [&](double squares, double max_norm) {
    const Buffer host(DType::f64, {1});
    *host.view().as<double>() = squares;
    copy(host.view(), sum.view());
    clip_factor(gpu, {.sum_of_squares = sum.view(),
                      .max_norm = max_norm,
                      .state = static_cast<StepState*>(device_state.view().data)});
    copy(device_state.view(), make_tensor(&state, DType::u8, Device::cpu, {sizeof state}));
    EXPECT_EQ(state.step, 7);
    EXPECT_EQ(state.lr, 2);
    return state;
  };
  EXPECT_EQ(clip(16, 2).grad_scale, 0.5F);
  EXPECT_EQ(clip(16, 2).grad_norm, 4);
  EXPECT_EQ(clip(16, 0).grad_scale, 1);
  EXPECT_EQ(clip(1, 2).grad_scale, 1);
  EXPECT_EQ(clip(1, 2).skip, 0);
  EXPECT_EQ(clip(NAN, 2).skip, 1);
  EXPECT_EQ(clip(INFINITY, 2).skip, 1);
  EXPECT_EQ(clip(1e300, 2).skip, 0);
}

TEST_F(UpdateGpu, CastIsTheCpus) {
  const GpuContext& gpu = GpuContext::shared();
  for (int64_t n : {0, 1, 8, 1003}) {
    const Buffer x = normal(n, 9);
    float* v = x.view().as<float>();
    const float special[] = {0,        -0.0F,     1 + 1.0F / 256, 1 + 3.0F / 256,
                             INFINITY, -INFINITY, 3.4e38F,        1e-40F};
    for (int64_t i = 0; i < std::min<int64_t>(n, 8); ++i) v[i] = special[i];
    const Buffer want(DType::bf16, {n}), got(DType::bf16, {n}, Device::cuda), gx = on_gpu(x.view());
    cast({}, {.from = x.view(), .to = want.view()});
    cast(gpu, {.from = gx.view(), .to = got.view()});
    expect_same_bits(on_host(got.view()).view(), want.view(), "cast");
  }
}

}  // namespace
}  // namespace sluice::test
