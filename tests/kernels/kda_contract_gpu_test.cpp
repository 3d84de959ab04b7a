// tests/kernels/kda_contract_gpu_test.cpp -- the cases of the KDA contract (kda_cases.h) on the
// GPU, heads of 64 channels (128 where the case asks for many), and what holds beside the numbers.
//
// They are compared with the chunked CPU back end in f64, which kda_test.cpp holds to the
// recurrence within 1e-12: the long cases would take the recurrence minutes.
#include "kernels/device/graph.h"
#include "kernels/device/stream.h"
#include "tests/kernels/kda_cases.h"
#include "tests/kernels/kda_gpu_bounds.h"
#include "tests/kernels/kda_gpu_problem.h"

namespace sluice::test {
namespace {

class KdaCudaContract : public testing::TestWithParam<int> {
 protected:
  KdaCudaContract() : cpu(Mode::run, 16) {}
  void SetUp() override {
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
      GTEST_SKIP() << "NOT TESTED, no GPU: " << cudaGetErrorName(e) << ": "
                   << cudaGetErrorString(e);
  }
  void check(const KdaCase& c, const KdaBounds& bounds) {
    KdaProblem want(c.shape), got(c.shape);
    c.prepare(want);
    round_inputs(want);
    got.take_inputs(want);
    want.run(cpu);
    KdaOnGpu gpu(got);
    gpu.forward();
    gpu.backward();
    gpu.download(got);
    expect_close(cat(c.number, " ", c.what), bounds, got, want);
  }

  CpuContext cpu;
};

// Bounds wider than bf16 asks for, and why.
KdaBounds bounds_of(const KdaCase& c) {
  // Two numbers, each the sum of gradients that nearly equal keys make cancel and that are good to
  // .009 themselves.
  if (c.number == 11) return {.dA_log = .0065};
  return {};
}

TEST_P(KdaCudaContract, Case) {
  for (KdaCase c : kda_contract_cases()) {
    if (c.number != GetParam() || c.shape.K == 1) continue;  // heads of 64 or 128
    c.shape.K = c.shape.V = c.shape.K > 64 ? 128 : 64;
    check(c, bounds_of(c));
  }
}

INSTANTIATE_TEST_SUITE_P(Number, KdaCudaContract, testing::Range(1, 20));

// Case 18: errors must not grow with the length; one document keeps the GPU busy, a hundred end.
TEST_F(KdaCudaContract, Case18OneLongAndManyShortDocuments) {
  std::vector<int32_t> cu{0, 16384};  // 65536 passes too, and takes 40 s
  for (int i = 0; i < 100; ++i) cu.push_back(cu.back() + 1 + i % 21);
  check({18, "16384 tokens and 100 short", kda_cases::shape(cu, {}, 2, 2, 64, 64),
         kda_cases::slow_gate},
        {});
}

// Case 12, to the last digit: the state holds integers, which no rounding touches; the norm's
// epsilon is 5e-7 of them.
TEST_F(KdaCudaContract, Case12KeepsIntegers) {
  for (KdaCase c : kda_contract_cases()) {
    if (c.number != 12) continue;
    c.shape.K = c.shape.V = 64;
    KdaProblem want(c.shape), got(c.shape);
    c.prepare(want);
    for (const Tensor& t : {want.v.view(), want.s0.view()})
      for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, std::round(8 * element(t, i)));
    round_inputs(want);
    got.take_inputs(want);
    want.run(cpu);
    KdaOnGpu gpu(got);
    gpu.forward();
    gpu.download(got);
    EXPECT_LE(compare(got.s1.view(), want.s1.view(), 0).rms, 2e-6);
  }
}

// Case 20: a forward that keeps nothing has its scratch in the arena; that nothing is read or
// written around tensors, download() sees in every test.
TEST_F(KdaCudaContract, Case20NothingAround) {
  for (const int64_t D : {64, 128}) {
    KdaProblem p(kda_cases::shape({0, 1, 1, 80, 209}, {}, 2, 4, D, D)), kept(p.shape),
        not_kept(p.shape);
    round_inputs(p);
    KdaOnGpu gpu(p);
    kda_forward(gpu.ctx, gpu.forward_args());
    SLUICE_CUDA(cudaDeviceSynchronize());
    gpu.download(not_kept);
    EXPECT_GT(gpu.arena.peak(), 0);
    gpu.forward();
    gpu.backward();
    gpu.download(kept);
    EXPECT_TRUE(same_bits(kept.o.view(), not_kept.o.view()));
    EXPECT_TRUE(same_bits(kept.s1.view(), not_kept.s1.view()));
  }
}

// Case 21: both passes recorded once and run again as a graph.
TEST_F(KdaCudaContract, Case21GraphsReplay) {
  KdaProblem p(kda_cases::shape({0, 77, 333}, kda_cases::kBounded, 2, 4, 128, 128));
  KdaProblem queued(p.shape), replayed(p.shape);
  round_inputs(p);
  KdaOnGpu gpu(p);
  gpu.forward();
  gpu.backward();
  gpu.download(queued);
  const Stream stream;
  Context ctx = gpu.ctx;
  ctx.stream = stream.get();
  Graph graph;
  graph.capture(ctx, [&] {
    gpu.queue_forward(ctx);
    kda_backward(ctx, gpu.backward_args());
  });
  for (int i = 0; i < 3; ++i) {
    gpu.poison_results();
    graph.launch(ctx);
    SLUICE_CUDA(cudaDeviceSynchronize());
    gpu.download(replayed);
    for (size_t r = 0; r < queued.results().size(); ++r)
      EXPECT_TRUE(same_bits(queued.results()[r].second, replayed.results()[r].second))
          << queued.results()[r].first;
  }
}

// Case 21: the state handed over between two calls, and the same bits on another stream while
// something else runs.
TEST_F(KdaCudaContract, Case21PiecesAndStreams) {
  const KdaShape whole = kda_cases::shape({0, 333}, kda_cases::kBounded, 2, 4, 128, 128);
  KdaProblem p(whole), one(whole), pieces(whole), again(whole);
  round_inputs(p);
  KdaOnGpu gpu(p);
  gpu.forward();
  gpu.download(one);
  cudaStream_t stream;
  SLUICE_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const Buffer busy(DType::u8, {256 << 20}, Device::cuda);
  for (int i = 0; i < 20; ++i) {
    SLUICE_CUDA(cudaMemsetAsync(busy.view().data, i, size_t(busy.view().numel()), nullptr));
    KdaForward a = gpu.forward_args();
    a.saved = gpu.saved_bytes();
    Context other = gpu.ctx;
    other.stream = stream;
    kda_forward(other, a);
    SLUICE_CUDA(cudaDeviceSynchronize());
    gpu.download(again);
    ASSERT_TRUE(same_bits(one.o.view(), again.o.view()) &&
                same_bits(one.s1.view(), again.s1.view()));
  }
  SLUICE_CUDA(cudaStreamDestroy(stream));
  const Buffer cu(DType::i32, {2}, Device::cuda), host(DType::i32, {2});
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 192}, {192, 333}}) {
    KdaForward a = gpu.forward_args();
    for (Tensor* t : {&a.q, &a.k, &a.v, &a.g, &a.beta, &a.o}) *t = t->rows(begin, end - begin);
    host.view().as<int32_t>()[1] = int32_t(end - begin);
    copy(host.view(), cu.view());
    a.cu_seqlens = cu.view();
    if (begin > 0) a.initial_state = a.final_state;
    kda_forward(gpu.ctx, a);
    SLUICE_CUDA(cudaDeviceSynchronize());
  }
  gpu.download(pieces);
  EXPECT_TRUE(same_bits(one.o.view(), pieces.o.view()));  // cut between chunks, handed over in f32
  EXPECT_TRUE(same_bits(one.s1.view(), pieces.s1.view()));
}

}  // namespace
}  // namespace sluice::test
