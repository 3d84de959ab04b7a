// kernels/tensor/context.h -- where and how an op runs. Passed to every op, never global.
#pragma once

#include <functional>

#include "kernels/base/profile_range.h"
#include "kernels/base/thread_pool.h"
#include "kernels/tensor/arena.h"

struct CUstream_st;  // cudaStream_t, so that host code needs no CUDA header

namespace sluice {

class CudaGemm;        // kernels/gemm/cuda_gemm.h
class CudnnAttention;  // kernels/mla/cudnn.h

enum class Mode : uint8_t {
  run,
  plan,       // shapes only: ops check their contract and take their memory, and compute nothing
  reference,  // the plain loops of reference.cpp; CPU only
  // As run, and a row's result depends on that row alone, not on how many others there are or where
  // it stands among them: generation in batches. Forward only.
  batch_invariant,
};

// strict: equal calls give equal bits. fast: an op may add in an order that depends on timing,
// where that is faster.
enum class Determinism : uint8_t { strict, fast };

struct Context {
  Device device = Device::cpu;
  Mode mode = Mode::run;
  Arena* arena = nullptr;         // activations, gradients, scratch; needed by ops that take any
  ThreadPool* threads = nullptr;  // CPU; null: the calling thread alone
  CUstream_st* stream = nullptr;  // CUDA
  CudaGemm* gemm = nullptr;       // CUDA; not needed in plan mode
  CudnnAttention* attention = nullptr;  // likewise
  Determinism determinism = Determinism::strict;
};

// Scratch of one op call, given back when the call returns. On CUDA later work of the same stream
// may reuse it at once: the stream orders the two.
ArenaTensor scratch(const Context& ctx, DType dtype, std::initializer_list<int64_t> shape,
                    Purpose purpose = Purpose::scratch);

// body(0) ... body(blocks - 1) on the context's threads. Blocks are fixed by the shape, never by
// the number of threads (kernels/base/thread_pool.h).
void parallel_for(const Context& ctx, int64_t blocks, const std::function<void(int64_t)>& body);

// cu_seqlens [documents + 1] i32: document d is rows cu_seqlens[d] .. cu_seqlens[d+1]. Documents
// may be empty, so an array of fixed capacity is filled up with N. Checks shape and dtype, and on
// the CPU (outside plan mode) that it starts at 0, never falls and ends at N. Returns the capacity.
int64_t check_cu_seqlens(const Context& ctx, const Tensor& cu_seqlens, int64_t N,
                         const char* label = "cu_seqlens", SourceLine at = SourceLine::here());

}  // namespace sluice

// Runs <backend>::op(...) after the caller has checked the contract, taken scratch and returned in
// plan mode. Back ends are the namespaces cuda (op.cu), cpu (cpu.cpp) and reference
// (reference.cpp).
#ifdef SLUICE_CUDA_BUILD
#define SLUICE_DISPATCH(op, ctx, ...)                                          \
  (::sluice::ProfileRange(#op),                                                \
   (ctx).device == ::sluice::Device::cuda    ? cuda::op(ctx, __VA_ARGS__)      \
   : (ctx).mode == ::sluice::Mode::reference ? reference::op(ctx, __VA_ARGS__) \
                                             : cpu::op(ctx, __VA_ARGS__))
#else
#define SLUICE_DISPATCH(op, ctx, ...)                                             \
  (SLUICE_CHECK((ctx).device == ::sluice::Device::cpu, "this build has no CUDA"), \
   (ctx).mode == ::sluice::Mode::reference ? reference::op(ctx, __VA_ARGS__)      \
                                           : cpu::op(ctx, __VA_ARGS__))
#endif
// The same for an op that has no CUDA back end yet.
#define SLUICE_DISPATCH_CPU(op, ctx, ...)                                                \
  (SLUICE_CHECK((ctx).device == ::sluice::Device::cpu, #op " has no CUDA back end yet"), \
   (ctx).mode == ::sluice::Mode::reference ? reference::op(ctx, __VA_ARGS__)             \
                                           : cpu::op(ctx, __VA_ARGS__))
