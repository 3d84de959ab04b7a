// kernels/tensor/context.cpp -- scratch, loops and the checks that ops share.
#include "kernels/tensor/context.h"

namespace sluice {

ArenaTensor scratch(const Context& ctx, DType dtype, std::initializer_list<int64_t> shape,
                    Purpose purpose) {
  SLUICE_CHECK(ctx.arena, "the op takes scratch and the context has no arena");
  return ArenaTensor(*ctx.arena, dtype, shape, purpose);
}

void parallel_for(const Context& ctx, int64_t blocks, const std::function<void(int64_t)>& body) {
  if (ctx.threads) return ctx.threads->parallel_for(blocks, body);
  for (int64_t i = 0; i < blocks; ++i) body(i);
}

int64_t check_cu_seqlens(const Context& ctx, const Tensor& cu, int64_t N, const char* label,
                         SourceLine at) {
  auto broken = [&](const auto&... detail) { fail(at.file, at.line, label, cat(detail...)); };
  if (cu.rank != 1 || cu.dtype != DType::i32 || cu.device != ctx.device || cu.dim(0) < 1)
    broken("is ", to_string(cu), ", expected i32 [documents + 1] on ", name(ctx.device));
  const int64_t documents = cu.dim(0) - 1;
  if (ctx.mode == Mode::plan || ctx.device != Device::cpu) return documents;

  const int32_t* c = cu.as<int32_t>();
  if (c[0] != 0) broken("starts at ", c[0], ", expected 0");
  for (int64_t d = 0; d < documents; ++d)
    if (c[d + 1] < c[d]) broken("falls from ", c[d], " to ", c[d + 1], " at document ", d);
  if (c[documents] != N) broken("ends at ", c[documents], ", expected ", N, " rows");
  return documents;
}

}  // namespace sluice
