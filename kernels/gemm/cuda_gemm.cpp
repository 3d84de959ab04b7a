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

// Row-major memory is the library's (column-major) view of the transpose.
void describe(Layout& layout, const Tensor& t) {
  SLUICE_CUBLAS(cublasLtMatrixLayoutCreate(&layout.handle, type_of(t), uint64_t(t.dim(1)),
                                           uint64_t(t.dim(0)), std::max(t.stride[0], t.dim(1))));
}

uint32_t alignment_of(const Tensor& t) {
  uint32_t bytes = 256;
  while (reinterpret_cast<uintptr_t>(t.data) % bytes != 0) bytes /= 2;
  return bytes;
}

}  // namespace

struct CudaGemm::State {
  using Kind = std::array<int64_t, 12>;

  cublasLtHandle_t handle = nullptr;
  std::map<Kind, cublasLtMatmulAlgo_t> algorithms;

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
  // c^T = op(b)^T op(a)^T: what the library calls A is our b.
  Operation operation;
  SLUICE_CUBLAS(cublasLtMatmulDescCreate(&operation.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t op_a = tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                          op_b = ta ? CUBLAS_OP_T : CUBLAS_OP_N;
  SLUICE_CUBLAS(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSA, &op_a,
                                               sizeof op_a));
  SLUICE_CUBLAS(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSB, &op_b,
                                               sizeof op_b));
  Layout la, lb, lc;
  describe(la, b), describe(lb, a), describe(lc, c.t);
  const State::Kind kind{ta,
                         tb,
                         M,
                         N,
                         K,
                         a.stride[0],
                         b.stride[0],
                         c.t.stride[0],
                         alignment_of(b),
                         alignment_of(a),
                         alignment_of(c.t),
                         int64_t(c.t.dtype)};
  auto found = state_->algorithms.find(kind);
  if (found == state_->algorithms.end())
    found = state_->algorithms.emplace(kind, state_->choose(operation, la, lb, lc, kind)).first;
  const float one = 1, beta = c.add ? 1 : 0;
  SLUICE_CUBLAS(cublasLtMatmul(state_->handle, operation.handle, &one, b.data, la.handle, a.data,
                               lb.handle, &beta, c.t.data, lc.handle, c.t.data, lc.handle,
                               &found->second, workspace.data, size_t(workspace.bytes()),
                               ctx.stream));
}

const char* CudaGemm::library() {
  static const std::string text = cat("cuBLASLt ", cublasLtGetVersion());
  return text.c_str();
}

}  // namespace sluice
