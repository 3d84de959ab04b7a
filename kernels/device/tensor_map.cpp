// kernels/device/tensor_map.cpp -- the driver's encoder, found at run time: no library to link.
#include "kernels/device/tensor_map.h"

#include "kernels/base/cuda_check.h"

namespace sluice {

static decltype(&cuTensorMapEncodeTiled) encoder() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  SLUICE_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                               cudaEnableDefault, &result));
  SLUICE_CHECK(result == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
}

CUtensorMap tensor_map(const Tensor& t, int rows) {
  static const auto encode = encoder();
  SLUICE_CHECK((t.rank == 2 || t.rank == 3) && t.dtype == DType::bf16, to_string(t));
  cuuint64_t sizes[3], strides[2];
  cuuint32_t box[3] = {64, cuuint32_t(rows), 1}, steps[3] = {1, 1, 1};
  for (int i = 0; i < t.rank; ++i) sizes[i] = cuuint64_t(t.dim(t.rank - 1 - i));
  for (int i = 0; i + 1 < t.rank; ++i)
    strides[i] = cuuint64_t(t.stride[size_t(t.rank - 2 - i)] * size_of(t.dtype));
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, cuuint32_t(t.rank), t.data, sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  SLUICE_CHECK(result == CUDA_SUCCESS, "error ", int(result), " for ", to_string(t), ", rows of ",
               t.stride[0]);
  return map;
}

}  // namespace sluice
