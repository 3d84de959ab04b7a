// tests/kernels/rmsnorm_gpu_test.cpp -- the CUDA back end of rmsnorm against the f64 reference.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/base/cuda_check.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "tests/support/op_problem.h"

namespace sluice {
namespace {

constexpr double kEps = 0.05;  // large, so that a formula that misplaces it fails

using Outputs = std::vector<Buffer>;  // y, rstd, dx, dw: dense, on the host

struct Problem {
  int64_t N, C;
  test::Layout layout = test::Layout::dense;
  double before = NAN;  // what gradients hold; a number: they are added to
};

// Inputs are random by (N, C) alone.
struct Inputs {
  explicit Inputs(const Problem& p)
      : x(DType::f32, {p.N, p.C}), dy(DType::f32, {p.N, p.C}), w(DType::f32, {p.C}) {
    test::fill_normal(x.view(), 1);
    test::fill_normal(dy.view(), 2);
    test::fill_normal(w.view(), 3);
  }
  Buffer x, dy, w;
};

// A copy on the GPU whose rows are `pad` elements further apart. `from` is dense.
struct OnGpu {
  OnGpu(const Tensor& from, int64_t pad) {
    if (from.rank == 1) {
      memory = Buffer(from.dtype, {from.dim(0)}, Device::cuda);
      t = memory.view();
      copy(from, t);
      return;
    }
    const Buffer wide(from.dtype, {from.dim(0), from.dim(1) + pad});
    test::fill(wide.view(), NAN);
    test::copy_elements(from, wide.view().columns(0, from.dim(1)));
    memory = Buffer(from.dtype, {from.dim(0), from.dim(1) + pad}, Device::cuda);
    copy(wide.view(), memory.view());
    t = memory.view().columns(0, from.dim(1));
  }
  // Back to dense host memory; what lies between the rows must still be NaN.
  Buffer host() const {
    const Tensor& m = memory.view();
    const Buffer wide_memory =
        m.rank == 1 ? Buffer(m.dtype, {m.dim(0)}) : Buffer(m.dtype, {m.dim(0), m.dim(1)});
    const Tensor& wide = wide_memory.view();
    copy(m, wide);
    if (t.rank == 1) return copy_of(wide);
    for (int64_t n = 0; n < t.dim(0); ++n)
      for (int64_t c = t.dim(1); c < wide.dim(1); ++c)
        EXPECT_TRUE(std::isnan(wide.row<float>(n)[c])) << n << " " << c;
    return copy_of(wide.columns(0, t.dim(1)));
  }
  static Buffer copy_of(const Tensor& from) {
    Buffer b = from.rank == 1 ? Buffer(from.dtype, {from.dim(0)})
                              : Buffer(from.dtype, {from.dim(0), from.dim(1)});
    test::copy_elements(from, b.view());
    return b;
  }

  Buffer memory;
  Tensor t;
};

Buffer filled(std::initializer_list<int64_t> shape, DType dtype, double value) {
  Buffer b(dtype, shape);
  test::fill(b.view(), value);
  return b;
}

void run_both(const Context& ctx, const Tensor& x, const Tensor& w, const Tensor& dy,
              const Tensor& y, const Tensor& rstd, Grad dx, Grad dw) {
  rmsnorm_forward(ctx, {.x = x, .w = w, .y = y, .rstd = rstd, .eps = kEps});
  rmsnorm_backward(ctx, {.x = x, .w = w, .rstd = rstd, .dy = dy, .dx = dx, .dw = dw});
}

Outputs on_gpu(const Problem& p) {
  const Inputs in(p);
  const int64_t pad = p.layout == test::Layout::strided ? 3 : 0;
  const OnGpu x(in.x.view(), pad), dy(in.dy.view(), pad), w(in.w.view(), 0);
  const OnGpu y(filled({p.N, p.C}, DType::f32, NAN).view(), pad);
  const OnGpu rstd(filled({p.N}, DType::f32, NAN).view(), 0);
  const OnGpu dx(filled({p.N, p.C}, DType::f32, p.before).view(), pad);
  const OnGpu dw(filled({p.C}, DType::f32, p.before).view(), 0);
  Arena arena(Device::cuda, 16 << 20);
  const Context ctx{.device = Device::cuda, .arena = &arena};
  const bool add = !std::isnan(p.before);
  run_both(ctx, x.t, w.t, dy.t, y.t, rstd.t, {dx.t, add}, {dw.t, add});
  SLUICE_CUDA(cudaDeviceSynchronize());
  Outputs out;
  for (const OnGpu* t : {&y, &rstd, &dx, &dw}) out.push_back(t->host());
  return out;
}

Outputs in_f64(const Problem& p) {
  const Inputs in(p);
  const Buffer x(DType::f64, {p.N, p.C}), dy(DType::f64, {p.N, p.C}), w(DType::f64, {p.C});
  test::copy_elements(in.x.view(), x.view());
  test::copy_elements(in.dy.view(), dy.view());
  test::copy_elements(in.w.view(), w.view());
  Outputs out;
  out.push_back(filled({p.N, p.C}, DType::f64, NAN));
  out.push_back(filled({p.N}, DType::f64, NAN));
  out.push_back(filled({p.N, p.C}, DType::f64, p.before));
  out.push_back(filled({p.C}, DType::f64, p.before));
  const bool add = !std::isnan(p.before);
  run_both(test::CpuContext(Mode::reference, 1, 16 << 20), x.view(), w.view(), dy.view(),
           out[0].view(), out[1].view(), {out[2].view(), add}, {out[3].view(), add});
  return out;
}

class RmsNormCuda : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
      GTEST_SKIP() << "NOT TESTED, no GPU: cudaGetDeviceCount found " << count << ", "
                   << cudaGetErrorName(e) << ": " << cudaGetErrorString(e);
  }
};

TEST_F(RmsNormCuda, AgreesWithReferenceInF64) {
  const char* names[] = {"y", "rstd", "dx", "dw"};
  // As on the CPU, but C / 32 terms a lane and a tree. dw sums N random terms, 64 at a time:
  // about sqrt(N) / 3 ulps of their sum, 21 for 4000, three times that at worst.
  const double ulps[] = {8, 4, 16, 64};
  for (int64_t C : {1, 5, 32, 192, 200, 768, 2049})
    for (int64_t N : {1, 3, 64, 65, 4000})
      for (double before : {double(NAN), 0.5}) {
        const Problem p{.N = N, .C = C, .layout = test::Layout::strided, .before = before};
        const Outputs got = on_gpu(p), want = in_f64(p);
        for (size_t i = 0; i < 4; ++i) {
          const auto e = test::compare(got[i].view(), want[i].view(), ulps[i]);
          EXPECT_LE(e.worst, 1) << names[i] << " N " << N << " C " << C << " " << e;
        }
      }
}

TEST_F(RmsNormCuda, SameBitsEveryTimeAndForEveryStride) {
  const Outputs once = on_gpu({.N = 5000, .C = 200});
  for (test::Layout layout : {test::Layout::dense, test::Layout::strided}) {
    const Outputs again = on_gpu({.N = 5000, .C = 200, .layout = layout});
    for (size_t i = 0; i < 4; ++i)
      test::expect_same_bits(once[i].view(), again[i].view(), "output " + std::to_string(i));
  }
}

TEST_F(RmsNormCuda, NoRows) {
  const Outputs written = on_gpu({.N = 0, .C = 67}), added = on_gpu({.N = 0, .C = 67, .before = 2});
  for (int64_t c = 0; c < 67; ++c) {
    EXPECT_EQ(test::element(written[3].view(), c), 0);
    EXPECT_EQ(test::element(added[3].view(), c), 2);
  }
}

TEST_F(RmsNormCuda, RefusesWhatItDoesNotDo) {
  const OnGpu x(filled({3, 4}, DType::f64, 1).view(), 0), w(filled({4}, DType::f64, 1).view(), 0);
  const OnGpu y(filled({3, 4}, DType::f64, 1).view(), 0), r(filled({3}, DType::f64, 1).view(), 0);
  Arena arena(Device::cuda, 1 << 20);
  const Context ctx{.device = Device::cuda, .arena = &arena};
  test::expect_part(
      test::error_of(
          [&] { rmsnorm_forward(ctx, {.x = x.t, .w = w.t, .y = y.t, .rstd = r.t, .eps = kEps}); }),
      "tensor is f64, asked for f32");
}

}  // namespace
}  // namespace sluice
