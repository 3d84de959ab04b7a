// kernels/embedding/embedding.cpp -- the contract, checked once for every back end.
#include "kernels/embedding/embedding.h"

#include "kernels/embedding/sizes.h"

namespace sluice {

#define SLUICE_EMBEDDING_BACKEND(backend)                                                         \
  namespace backend {                                                                             \
  void embedding_forward(const Context& ctx, const EmbeddingForward& a, const EmbeddingScratch&); \
  void embedding_backward(const Context& ctx, const EmbeddingBackward& a,                         \
                          const EmbeddingScratch&);                                               \
  }
SLUICE_EMBEDDING_BACKEND(cuda)
SLUICE_EMBEDDING_BACKEND(cpu)
SLUICE_EMBEDDING_BACKEND(reference)
#undef SLUICE_EMBEDDING_BACKEND

static void check_tokens(const Context& ctx, const Tensor& tokens, int64_t V) {
  if (ctx.mode == Mode::plan || ctx.device != Device::cpu) return;
  for (int64_t n = 0; n < tokens.dim(0); ++n) {
    const int32_t id = tokens.as<int32_t>()[n];
    SLUICE_CHECK(id >= 0 && id < V, "token ", id, " at row ", n, ", expected 0 to ", V - 1);
  }
}

void embedding_forward(const Context& ctx, const EmbeddingForward& a) {
  const int64_t N = a.tokens.dim(0), V = a.table.dim(0), D = a.table.dim(1);
  check_shape(a.tokens, "tokens", {N}, DType::i32, ctx.device);
  check_shape(a.table, "table", {V, D}, a.table.dtype, ctx.device);
  check_shape(a.y, "y", {N, D}, a.table);
  check_tokens(ctx, a.tokens, V);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(embedding_forward, ctx, a, EmbeddingScratch{});
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& a) {
  const int64_t N = a.tokens.dim(0), D = a.dy.dim(1), V = a.dtable.t.dim(0);
  check_shape(a.tokens, "tokens", {N}, DType::i32, ctx.device);
  check_shape(a.dy, "dy", {N, D}, a.dy.dtype, ctx.device);
  check_shape(a.dtable.t, "dtable", {V, D}, sum_type(a.dy.dtype), ctx.device);
  check_tokens(ctx, a.tokens, V);
  ArenaTensor order, sorted, parts;
  if (ctx.device == Device::cuda) {
    order = scratch(ctx, DType::i32, {N}), sorted = scratch(ctx, DType::i32, {N});
    parts = scratch(ctx, DType::f32, {(N + kEmbeddingPiece - 1) / kEmbeddingPiece, 2, D});
  }
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(embedding_backward, ctx, a, EmbeddingScratch{order, sorted, parts});
}

}  // namespace sluice
