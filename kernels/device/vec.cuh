// kernels/device/vec.cuh -- runs of E elements (8, or 1 where something is not aligned for 8) as
// f32.
//
// Ops that stream tokens read and write through these: 16 bytes of bf16 a thread and access.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <initializer_list>

#include "kernels/tensor/tensor.h"

namespace sluice {

template <>
constexpr DType dtype_of<__nv_bfloat16>() {
  return DType::bf16;
}

using bf16 = __nv_bfloat16;

struct Rows {  // [N, ...] bf16: row n at data + n * stride
  bf16* data;
  int64_t stride;
  __device__ bf16* operator[](int64_t n) const { return data + n * stride; }
};
inline Rows rows_of(const Tensor& t) {
  return {t.as<bf16>(), t.stride[0]};
}

inline Rows rows_or_none(const Tensor& t) {
  return t ? rows_of(t) : Rows{nullptr, 0};
}

// Do these tensors (those that exist) start on 16 bytes, and so does every row?
inline bool rows_aligned(std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors) {
    const int64_t row = (t.rank > 1 ? t.stride[0] : 0) * size_of(t.dtype);
    if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0 || row % 16 != 0) return false;
  }
  return true;
}

template <int E>
__device__ inline void load(float (&x)[E], const bf16* p) {
  static_assert(E == 1 || E == 2 || E == 4 || E == 8);
  if constexpr (E == 1) {
    x[0] = __bfloat162float(*p);
  } else if constexpr (E == 2) {
    const float2 f = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
    x[0] = f.x, x[1] = f.y;
  } else {
    uint32_t words[E / 2];
    if constexpr (E == 4)
      *reinterpret_cast<uint2*>(words) = *reinterpret_cast<const uint2*>(p);
    else
      *reinterpret_cast<uint4*>(words) = *reinterpret_cast<const uint4*>(p);
#pragma unroll
    for (int i = 0; i < E / 2; ++i) {
      const float2 f = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&words[i]));
      x[2 * i] = f.x, x[2 * i + 1] = f.y;
    }
  }
}
template <int E>
__device__ inline void load(float (&x)[E], const float* p) {
  if constexpr (E == 1) {
    x[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < E; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(p + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  }
}

template <int E>
__device__ inline void store(bf16* p, const float (&x)[E]) {
  if constexpr (E == 1) {
    *p = __float2bfloat16(x[0]);
  } else if constexpr (E == 2) {
    *reinterpret_cast<__nv_bfloat162*>(p) = __floats2bfloat162_rn(x[0], x[1]);
  } else {
    uint32_t words[E / 2];
#pragma unroll
    for (int i = 0; i < E / 2; ++i) {
      const __nv_bfloat162 v = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      words[i] = *reinterpret_cast<const uint32_t*>(&v);
    }
    if constexpr (E == 4)
      *reinterpret_cast<uint2*>(p) = {words[0], words[1]};
    else
      *reinterpret_cast<uint4*>(p) = {words[0], words[1], words[2], words[3]};
  }
}
template <int E>
__device__ inline void store(float* p, const float (&x)[E]) {
  if constexpr (E == 1) {
    *p = x[0];
  } else {
#pragma unroll
    for (int i = 0; i < E; i += 4)
      *reinterpret_cast<float4*>(p + i) = {x[i], x[i + 1], x[i + 2], x[i + 3]};
  }
}

// What a Grad asks for: written, or added to in f32 and rounded once.
template <int E, class T>
__device__ inline void put(T* p, float (&x)[E], bool add) {
  if (add) {
    float old[E];
    load(old, p);
#pragma unroll
    for (int i = 0; i < E; ++i) x[i] += old[i];
  }
  store(p, x);
}

// E bf16 in E / 2 registers, as they come from memory: for what is fetched well ahead of its use.
template <int E>
struct Packed {
  uint32_t words[(E + 1) / 2];
  __device__ void fetch(const bf16* p) {
    if constexpr (E == 8)
      *reinterpret_cast<uint4*>(words) = *reinterpret_cast<const uint4*>(p);
    else if constexpr (E == 4)
      *reinterpret_cast<uint2*>(words) = *reinterpret_cast<const uint2*>(p);
    else
      words[0] = *reinterpret_cast<const uint16_t*>(p);
  }
  __device__ void unpack(float (&x)[E]) const {
    static_assert(E == 1 || E == 4 || E == 8);
    if constexpr (E == 1) {
      x[0] = __uint_as_float(words[0] << 16);
    } else {
#pragma unroll
      for (int i = 0; i < E / 2; ++i) {
        x[2 * i] = __uint_as_float(words[i] << 16);
        x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
      }
    }
  }
};

__device__ inline float sigmoid(float x) {
  return __fdividef(1, 1 + __expf(-x));
}

// log(1 + e^x); what the sum 1 + e rounds away is given back as a factor.
__device__ inline float softplus(float x) {
  const float e = __expf(-fabsf(x)), u = 1 + e;
  return fmaxf(x, 0) + (u == 1 ? e : __logf(u) * __fdividef(e, u - 1));
}

// A grid for kernels that loop over `total` pieces of work, a thread a piece and round.
inline unsigned grid_for(int64_t total, int threads) {
  const int64_t blocks = (total + threads - 1) / threads;
  constexpr int64_t kEnough = 132 * 16;
  return unsigned(blocks < kEnough ? blocks : kEnough);
}

}  // namespace sluice
