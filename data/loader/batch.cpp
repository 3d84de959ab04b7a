// data/loader/batch.cpp -- memory and documents of a micro-batch.
#include "data/loader/batch.h"

#include "kernels/base/check.h"

namespace sluice {

MicroBatchBuffer::MicroBatchBuffer(int64_t tokens, int64_t max_documents, int64_t longest)
    : tokens_(DType::i32, {tokens}),
      targets_(DType::i32, {tokens}),
      cu_seqlens_(DType::i32, {max_documents + 1}),
      batch_{.tokens = tokens_.view(),
             .targets = targets_.view(),
             .cu_seqlens = cu_seqlens_.view(),
             .longest = longest} {}

void set_documents(const std::vector<int32_t>& ends, MicroBatch& batch) {
  const int64_t capacity = batch.cu_seqlens.dim(0) - 1, N = batch.tokens.dim(0);
  SLUICE_CHECK(int64_t(ends.size()) <= capacity, ends.size(), " documents, room for ", capacity);
  int32_t* cu = batch.cu_seqlens.as<int32_t>();
  cu[0] = 0;
  for (int64_t d = 0; d < capacity; ++d)
    cu[d + 1] = d < int64_t(ends.size()) ? ends[size_t(d)] : int32_t(N);
}

}  // namespace sluice
