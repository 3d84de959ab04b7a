// kernels/device/unit_lower.cuh -- the inverse of a unit lower triangular matrix [64, 64] in shared
// memory, in f32, by a CTA of 256 threads.
//
// By substitution in blocks of 16 and products across them: with nearly equal keys the powers of L
// grow like binomials, so that a series in them would lose every digit.
#pragma once

namespace sluice {

constexpr int kUnitLowerPitch = 64 + 4;  // f32, of all matrices here

namespace unit_lower {

// `count` products [n, n] at once, `step` elements apart: out = sign a b. A thread 4 columns.
template <int n>
__device__ void products(float* out, const float* a, const float* b, float sign, int count,
                         int step) {
  constexpr int kEach = n * n / 4;
  if (int(threadIdx.x) < count * kEach) {
    const int offset = int(threadIdx.x) / kEach * step, t = int(threadIdx.x) % kEach;
    const int i = t / (n / 4), j = t % (n / 4) * 4;
    float4 sum{0, 0, 0, 0};
#pragma unroll 8
    for (int x = 0; x < n; ++x) {
      const float ax = a[offset + i * kUnitLowerPitch + x];
      const float4 bx = *reinterpret_cast<const float4*>(b + offset + x * kUnitLowerPitch + j);
      sum.x += ax * bx.x, sum.y += ax * bx.y, sum.z += ax * bx.z, sum.w += ax * bx.w;
    }
    *reinterpret_cast<float4*>(out + offset + i * kUnitLowerPitch + j) = {
        sign * sum.x, sign * sum.y, sign * sum.z, sign * sum.w};
  }
  __syncthreads();
}

}  // namespace unit_lower

// A = (I + L)^-1: the four blocks [16, 16] on the diagonal, then twice [[A0, 0], [-A1 L10 A0, A1]].
// Of L what is below the diagonal is read, of A what is not above it means something. `room` is as
// large as A. All threads see A when it returns.
__device__ inline void invert_unit_lower(const float* L, float* A, float* room) {
  constexpr int kPitch = kUnitLowerPitch;
  if (threadIdx.x < 64) {  // a thread a column of a block
    const int begin = int(threadIdx.x) / 16 * 16, j = int(threadIdx.x) % 16;
    float x[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float sum = i == j ? 1.f : 0.f;
#pragma unroll
      for (int k = 0; k < i; ++k) sum -= L[(begin + i) * kPitch + begin + k] * x[k];
      x[i] = sum;
      A[(begin + i) * kPitch + begin + j] = sum;
    }
  }
  if (threadIdx.x >= 64 &&
      threadIdx.x < 64 + 32) {  // above the diagonal, read by the last products
    const int i = int(threadIdx.x) - 64, first = i / 16 * 32 + i % 16;
    for (int j = 0; j < 16; ++j) A[first * kPitch + first / 32 * 32 + 16 + j] = 0;
  }
  __syncthreads();
  constexpr int kBelow = 16 * kPitch, kBelow32 = 32 * kPitch, kNext = 32 * kPitch + 32;
  unit_lower::products<16>(room + kBelow, L + kBelow, A, 1, 2, kNext);
  unit_lower::products<16>(A + kBelow, A + kBelow + 16, room + kBelow, -1, 2, kNext);
  unit_lower::products<32>(room + kBelow32, L + kBelow32, A, 1, 1, 0);
  unit_lower::products<32>(A + kBelow32, A + kBelow32 + 32, room + kBelow32, -1, 1, 0);
}

}  // namespace sluice
