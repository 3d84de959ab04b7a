// kernels/chunks/cuda_table.h -- where the chunks of packed documents lie, on the GPU: one kernel,
// so that the host need not know the documents.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice::chunks {

// Tokens n0 .. n0 + C of one document; C is 0 beyond the last chunk.
struct ChunkAt {
  int n0, C;
};

// Pieces of one allocation, each on 256 bytes. From a null pointer their size is known all the
// same.
struct Pieces {
  char* p;
  template <class T>
  void take(T*& to, int64_t count) {
    to = reinterpret_cast<T*>(p);
    p += (count * int64_t(sizeof(T)) + 255) / 256 * 256;
  }
};

// chunk [chunks], of at most `size` tokens each, numbered document by document; first
// [documents + 1], the number of a document's first one.
void make_chunk_table(const Context& ctx, const Tensor& cu_seqlens, int64_t chunks, int size,
                      ChunkAt* chunk, int* first);

}  // namespace sluice::chunks
