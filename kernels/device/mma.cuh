// kernels/device/mma.cuh -- 16 x 16 tiles of bf16 or fp16 in shared memory, and products of them by
// a warp.
//
// One product: c [16, 8] += a [16, 16] b [16, 8], f32 sums. Lane l holds of a tile [16, 16] the
// elements (l / 4 + 8 (r % 2), 2 (l % 4) + 8 (r / 2) + {0, 1}) in register r, and of c the elements
// (l / 4 + 8 (e / 2), 2 (l % 4) + e % 2) in c[e]. Two tiles of b make 16 columns: registers 0, 1
// and 2, 3.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace sluice {

using bf16 = __nv_bfloat16;

__device__ inline uint32_t shared_address(const void* p) {
  return uint32_t(__cvta_generic_to_shared(p));
}
__device__ inline void ldmatrix(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}
__device__ inline void ldmatrix_transposed(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}

// Four 8 x 8 matrices, as they are or each transposed; lane l has the address of row l % 8 of
// matrix l / 8.
__device__ inline void stmatrix(const uint32_t (&r)[4], bf16* p) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(p)),
      "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
      : "memory");
}
__device__ inline void stmatrix_transposed(const uint32_t (&r)[4], bf16* p) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                   shared_address(p)),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

// The tile at p, rows `ld` elements apart (a multiple of 8): as a; its transpose as a; as b, stored
// [k, n]; as b, stored [n, k].
__device__ inline void load_a(uint32_t (&r)[4], const bf16* p, int ld) {
  const int l = threadIdx.x % 32;
  ldmatrix(r, p + l % 16 * ld + l / 16 * 8);
}
__device__ inline void load_a_transposed(uint32_t (&r)[4], const bf16* p, int ld) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(r, p + (l % 8 + l / 16 * 8) * ld + l / 8 % 2 * 8);
}
__device__ inline void load_b(uint32_t (&r)[4], const bf16* p, int ld) {
  const int l = threadIdx.x % 32;
  ldmatrix_transposed(r, p + l % 16 * ld + l / 16 * 8);
}
__device__ inline void load_b_transposed(uint32_t (&r)[4], const bf16* p, int ld) {
  const int l = threadIdx.x % 32;
  ldmatrix(r, p + (l % 8 + l / 16 * 8) * ld + l / 8 % 2 * 8);
}

__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same of fp16.
__device__ inline void mma_fp16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&v);
}
__device__ inline float2 unpack(uint32_t v) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v));
}
__device__ inline uint32_t pack_fp16(float low, float high) {
  const __half2 v = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&v);
}
__device__ inline float2 unpack_fp16(uint32_t v) {
  return __half22float2(*reinterpret_cast<const __half2*>(&v));
}

// 16 bytes from global to shared memory, behind the thread's back; zeros if !there.
__device__ inline void copy_16_bytes(bf16* to, const bf16* from, bool there = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace sluice
