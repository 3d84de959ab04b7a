// kernels/gemm/cuda_gemm.cpp -- one description a call, one algorithm a kind of call.
#include "kernels/gemm/cuda_gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>

#include "kernels/base/cuda_check.h"
#include "kernels/tensor/fill.h"

#define SLUICE_CUBLAS(call)                                           \
  do {                                                                \
    const cublasStatus_t sluice_status = (call);                      \
    SLUICE_CHECK(sluice_status == CUBLAS_STATUS_SUCCESS, #call, ": ", \
                 cublasLtGetStatusName(sluice_status), ": ",          \
                 cublasLtGetStatusString(sluice_status));             \
  } while (0)

namespace sluice {
namespace {

template <class Handle, cublasStatus_t (*destroy)(Handle)>
struct Owner {
  Owner() = default;
  ~Owner() { (void)destroy(handle); }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  Handle handle = nullptr;
};
using Operation = Owner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(const Tensor& t) {
  SLUICE_CHECK(t.dtype == DType::bf16 || t.dtype == DType::f32, "an operand is ", to_string(t));
  return t.dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

int64_t row_stride(const Tensor& t) {
  return std::max(t.stride[t.rank - 2], t.dim(-1));
}

// Row-major memory is the library's (column-major) view of the transpose. Of rank 3: a batch.
void describe(Layout& layout, const Tensor& t) {
  SLUICE_CUBLAS(cublasLtMatrixLayoutCreate(&layout.handle, type_of(t), uint64_t(t.dim(-1)),
                                           uint64_t(t.dim(-2)), row_stride(t)));
  if (t.rank == 2) return;
  const int32_t count = int32_t(t.dim(0));
  SLUICE_CUBLAS(cublasLtMatrixLayoutSetAttribute(layout.handle, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                 &count, sizeof count));
  SLUICE_CUBLAS(cublasLtMatrixLayoutSetAttribute(layout.handle,
                                                 CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                 &t.stride[0], sizeof t.stride[0]));
}

uint32_t alignment_of(const Tensor& t) {
  uint32_t bytes = 256;
  const auto stride = t.rank == 3 ? uintptr_t(t.stride[0] * size_of(t.dtype)) : 0;  // of a batch
  while ((reinterpret_cast<uintptr_t>(t.data) | stride) % bytes != 0) bytes /= 2;
  return bytes;
}

}  // namespace

struct CudaGemm::State {
  using Kind = std::array<int64_t, 13>;

  cublasLtHandle_t handle = nullptr;
  std::map<Kind, cublasLtMatmulAlgo_t> algorithms;

  void multiply(const Context& ctx, const Batch& g, const Tensor& workspace);
  cublasLtMatmulAlgo_t choose(const Operation& operation, const Layout& a, const Layout& b,
                              const Layout& c, const Kind& kind) {
    Preference p;
    SLUICE_CUBLAS(cublasLtMatmulPreferenceCreate(&p.handle));
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      SLUICE_CUBLAS(cublasLtMatmulPreferenceSetAttribute(p.handle, what, &value, sizeof value));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(kGemmWorkspaceBytes));
    // Parts of a split K are added up in f32: in c's type they would be rounded first.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(kind[8]));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(kind[9]));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(kind[10]));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(kind[10]));
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    SLUICE_CUBLAS(cublasLtMatmulAlgoGetHeuristic(handle, operation.handle, a.handle, b.handle,
                                                 c.handle, c.handle, p.handle, 1, &best, &found));
    SLUICE_CHECK(found == 1 && best.state == CUBLAS_STATUS_SUCCESS,
                 "cuBLASLt has no algorithm for M ", kind[2], ", N ", kind[3], ", K ", kind[4]);
    return best.algo;
  }
};

// c^T = op(b)^T op(a)^T: what the library calls A is our b.
void CudaGemm::State::multiply(const Context& ctx, const Batch& g, const Tensor& workspace) {
  const bool ta = g.transpose_a == Transpose::yes, tb = g.transpose_b == Transpose::yes;
  Operation operation;
  SLUICE_CUBLAS(cublasLtMatmulDescCreate(&operation.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t op_a = tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                          op_b = ta ? CUBLAS_OP_T : CUBLAS_OP_N;
  SLUICE_CUBLAS(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSA, &op_a,
                                               sizeof op_a));
  SLUICE_CUBLAS(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSB, &op_b,
                                               sizeof op_b));
  Layout la, lb, lc;
  describe(la, g.b), describe(lb, g.a), describe(lc, g.d);
  const Kind kind{ta,
                  tb,
                  g.d.dim(-2),
                  g.d.dim(-1),
                  g.a.dim(ta ? -2 : -1),
                  row_stride(g.a),
                  row_stride(g.b),
                  row_stride(g.d),
                  alignment_of(g.b),
                  alignment_of(g.a),
                  std::min(alignment_of(g.c), alignment_of(g.d)),
                  int64_t(g.d.dtype),
                  g.d.rank == 3 ? g.d.dim(0) : 0};
  auto found = algorithms.find(kind);
  if (found == algorithms.end())
    found = algorithms.emplace(kind, choose(operation, la, lb, lc, kind)).first;
  const float alpha = float(g.alpha), beta = float(g.beta);
  SLUICE_CUBLAS(cublasLtMatmul(handle, operation.handle, &alpha, g.b.data, la.handle, g.a.data,
                               lb.handle, &beta, g.c.data, lc.handle, g.d.data, lc.handle,
                               &found->second, workspace.data, size_t(workspace.bytes()),
                               ctx.stream));
}

CudaGemm::CudaGemm() : state_(std::make_unique<State>()) {
  SLUICE_CUBLAS(cublasLtCreate(&state_->handle));
}
CudaGemm::~CudaGemm() {
  (void)cublasLtDestroy(state_->handle);
}

void CudaGemm::run(const Context& ctx, Transpose transpose_a, const Tensor& a,
                   Transpose transpose_b, const Tensor& b, const Grad& c, const Tensor& workspace) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const int64_t M = c.t.dim(0), N = c.t.dim(1), K = a.dim(ta ? 0 : 1);
  SLUICE_CHECK(a.dim(ta ? 1 : 0) == M && b.dim(tb ? 0 : 1) == N && b.dim(tb ? 1 : 0) == K, "a is ",
               to_string(a), ", b ", to_string(b), ", c ", to_string(c.t));
  if (M == 0 || N == 0) return;
  if (K == 0) {
    if (!c.add) zero(ctx, c.t);
    return;
  }
  state_->multiply(ctx, {transpose_a, a, transpose_b, b, 1, c.add ? 1.0 : 0.0, c.t, c.t},
                   workspace);
}

void CudaGemm::run(const Context& ctx, const Batch& g, const Tensor& workspace) {
  const bool ta = g.transpose_a == Transpose::yes, tb = g.transpose_b == Transpose::yes;
  const int64_t B = g.d.dim(0), M = g.d.dim(1), N = g.d.dim(2), K = g.a.dim(ta ? 1 : 2);
  check_shape(g.a, "a", {B, ta ? K : M, ta ? M : K}, g.a);
  check_shape(g.b, "b", {B, tb ? N : K, tb ? K : N}, g.a);
  check_shape(g.c, "c", {B, M, N}, g.d);
  if (B > 0 && M > 0 && N > 0) state_->multiply(ctx, g, workspace);
}

const char* CudaGemm::library() {
  static const std::string text = cat("cuBLASLt ", cublasLtGetVersion());
  return text.c_str();
}

}  // namespace sluice
