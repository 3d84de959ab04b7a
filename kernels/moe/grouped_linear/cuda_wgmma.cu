// kernels/moe/grouped_linear/cuda_wgmma.cu -- 128 x 256 tiles: one thread has the copy engine fill
// a ring of stages, two warpgroups multiply what is there, half of the rows each.
//
// A CTA for every multiprocessor, which walks the list of tiles; stages of the next tile are
// brought while the sums of this one are written. Where an expert's rows end inside of a tile, the
// rows behind them are those of the next expert: in forward and dx they are not written, in dw,
// whose reduction they end, they are cleared in shared memory.
#include "kernels/base/cuda_check.h"
#include "kernels/device/barrier.cuh"
#include "kernels/device/tensor_map.h"
#include "kernels/device/vec.cuh"
#include "kernels/device/wgmma_wide.cuh"
#include "kernels/moe/grouped_linear/cuda.cuh"

namespace sluice::cuda {

constexpr int kM = 128, kN = 256, kK = 64, kStages = 4, kConsumers = 256,
              kThreads = kConsumers + 128;
// Rows of what a warp writes at once, 16 of 64 bf16 or of 32 f32: without conflicts of banks.
constexpr int kLd = 64 + 8, kLdSums = 32 + 8;
constexpr int kOutBytes = 16 * kLdSums * 4;
static_assert(kOutBytes >= 16 * kLd * 2);
constexpr int kMaxExperts = 1024;

struct Shared {
  bf16 a[kStages][kM * kK];  // first, on 1024 bytes
  bf16 b[kStages][kN * kK];
  alignas(16) char out[kConsumers / 32][kOutBytes];
  Barrier full[kStages], empty[kStages];
  int offsets[kMaxExperts + 1];
};
constexpr int kSharedBytes = sizeof(Shared) + 1024;

// A box of a tensor of rank 2 or 3, from these coordinates on.
__device__ inline void copy_box(bf16* to, const CUtensorMap& map, Barrier& done, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(done.address()), "r"(x), "r"(y)
      : "memory");
}
__device__ inline void copy_box(bf16* to, const CUtensorMap& map, Barrier& done, int x, int y,
                                int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(done.address()), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// The ring's position: every role counts the same stages.
struct Ring {
  int stage = 0, parity = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

template <Product product>
__device__ inline int steps_of(const GroupedArgs& args, const GroupedTile& t) {
  const int K = product == Product::weight ? t.rows : product == Product::forward ? args.D : args.F;
  return (K + kK - 1) / kK;
}

// Step `step` of a tile into a stage. Operands whose rows are along the reduction are tiles
// [64, 64] for every 64 of the outer dimension.
template <Product product>
__device__ inline void bring(Shared& s, int stage, const CUtensorMap& a_map,
                             const CUtensorMap& b_map, const GroupedTile& t, int step) {
  bf16 *a = s.a[stage], *b = s.b[stage];
  Barrier& done = s.full[stage];
  done.arrive_expecting((kM + kN) * kK * 2);
  const int k = step * kK;
  if constexpr (product == Product::weight) {
    for (int i = 0; i < kM / 64; ++i)
      copy_box(a + i * kTile, a_map, done, t.m + 64 * i, t.begin + k);
    for (int i = 0; i < kN / 64; ++i)
      copy_box(b + i * kTile, b_map, done, t.n + 64 * i, t.begin + k);
  } else {
    copy_box(a, a_map, done, k, t.begin + t.m);
    if constexpr (product == Product::forward)
      copy_box(b, b_map, done, k, t.n, t.expert);
    else
      for (int i = 0; i < kN / 64; ++i)
        copy_box(b + i * kTile, b_map, done, t.n + 64 * i, k, t.expert);
  }
}

// Rows `from` .. 63 of a stage of dw are not this expert's.
__device__ inline void clear_rows(bf16* a, bf16* b, int from) {
  const int pieces = (kK - from) * 8;  // of 16 bytes, in a tile [64, 64]
  for (int i = threadIdx.x; i < pieces * (kM + kN) / 64; i += kConsumers) {
    const int tile = i / pieces, at = i % pieces;
    bf16* to = tile < kM / 64 ? a + tile * kTile : b + (tile - kM / 64) * kTile;
    *reinterpret_cast<uint4*>(to + from * 64 + at * 8) = {};
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

// c of this warpgroup: its 64 rows of the tile.
template <Product product>
__device__ inline void multiply(Shared& s, Ring& ring, const GroupedTile& t, int steps,
                                float (&c)[128]) {
  constexpr bool a_by_k = product == Product::weight, b_by_k = product != Product::forward;
  const int group = threadIdx.x / 128;
  int before = -1;  // the stage whose products may still run
  for (int step = 0; step < steps; ++step, ring.next()) {
    s.full[ring.stage].wait(ring.parity);
    bf16 *a = s.a[ring.stage], *b = s.b[ring.stage];
    if (product == Product::weight && step + 1 == steps && t.rows % kK != 0)
      clear_rows(a, b, t.rows % kK);
    const uint64_t da = operand_descriptor(a + group * kTile, a_by_k),
                   db = operand_descriptor(b, b_by_k);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < kK / 16; ++i)
      wgmma_wide<a_by_k, b_by_k>(c, da + i * operand_step(a_by_k), db + i * operand_step(b_by_k),
                                 step > 0 || i > 0);
    wgmma_commit();
    wgmma_wait<1>();
    if (before >= 0 && threadIdx.x % 128 == 0) s.empty[before].arrive();
    before = ring.stage;
  }
  wgmma_wait<0>();
  pin(c);
  if (before >= 0 && threadIdx.x % 128 == 0) s.empty[before].arrive();
}

// What a warp writes: its 16 rows of the tile, of which `rows` are the expert's (also fewer than 0,
// or more), and the columns n .. N - 1.
template <class T>
struct WarpRows {
  T* data;  // of the first row
  int64_t stride;
  int rows, n, N;
};

// Rounded, through shared memory, 64 columns at a time: pieces of 128 bytes of a row.
__device__ inline void write_rows(void* memory, const WarpRows<bf16>& out, const float (&c)[128]) {
  auto* stage = static_cast<bf16*>(memory);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < kN / 64; ++part) {
    const int n = out.n + part * 64;
    if (n >= out.N) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float* v = c + (part * 8 + j) * 4;
      bf16* to = stage + lane / 4 * kLd + j * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(to) = pack(v[0], v[1]);
      *reinterpret_cast<uint32_t*>(to + 8 * kLd) = pack(v[2], v[3]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i * 4 + lane / 8, column = lane % 8 * 8;
      if (row < out.rows && n + column < out.N)
        *reinterpret_cast<uint4*>(out.data + row * out.stride + n + column) =
            *reinterpret_cast<const uint4*>(stage + row * kLd + column);
    }
    __syncwarp();
  }
}

// Four elements of dw. Added ones go to memory as "add this", so that no thread waits for what is
// there: each element has one thread in a launch, so it is old + new whatever the order.
__device__ inline void put_sums(float* p, float (&v)[4], bool add) {
  if (add)
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v[0]),
                 "f"(v[1]), "f"(v[2]), "f"(v[3])
                 : "memory");
  else
    store(p, v);
}
__device__ inline void put_sums(bf16* p, float (&v)[4], bool add) {
  put(p, v, add);
}

// The sums themselves through shared memory, 32 columns at a time.
template <class T>
__device__ inline void write_sums(void* memory, const WarpRows<T>& out, bool add,
                                  const float (&c)[128]) {
  auto* sums = static_cast<float*>(memory);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < kN / 32; ++part) {
    const int n = out.n + part * 32;
    if (n >= out.N) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float* v = c + (part * 4 + j) * 4;
      float* to = sums + lane / 4 * kLdSums + j * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to) = {v[0], v[1]};
      *reinterpret_cast<float2*>(to + 8 * kLdSums) = {v[2], v[3]};
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i * 4 + lane / 8, column = lane % 8 * 4;
      float v[4];
      load(v, sums + row * kLdSums + column);
      if (row < out.rows && n + column < out.N)
        put_sums(out.data + row * out.stride + n + column, v, add);
    }
    __syncwarp();
  }
}

template <Product product>
__device__ inline void write(void* memory, const GroupedArgs& args, const GroupedTile& t,
                             const float (&c)[128]) {
  const int first = t.m + int(threadIdx.x) / 32 * 16;
  if constexpr (product == Product::weight) {
    float* out = static_cast<float*>(args.out);
    out += (int64_t(t.expert) * args.F + first) * args.stride;
    write_sums<float>(memory, {out, args.stride, args.F - first, t.n, args.D}, args.add, c);
  } else {
    bf16* out = static_cast<bf16*>(args.out) + int64_t(t.begin + first) * args.stride;
    const int N = product == Product::forward ? args.F : args.D;
    const WarpRows<bf16> rows{out, args.stride, t.rows - first, t.n, N};
    if (product == Product::data && args.add)
      write_sums(memory, rows, true, c);
    else
      write_rows(memory, rows, c);
  }
}

template <Product product>
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_kernel(const __grid_constant__ CUtensorMap a_map,
                 const __grid_constant__ CUtensorMap b_map, const GroupedArgs args) {
  extern __shared__ uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  for (int e = threadIdx.x; e <= args.E; e += kThreads) s.offsets[e] = args.offsets[e];
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) s.full[i].init(1), s.empty[i].init(kConsumers / 128);
    publish_barriers();
  }
  __syncthreads();
  GroupedTiles<product, kM, kN> tiles(s.offsets, args);
  GroupedTile t;
  Ring ring;
  if (threadIdx.x >= kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == kConsumers)
      for (int i = blockIdx.x; tiles.find(i, t); i += gridDim.x) {
        const int steps = steps_of<product>(args, t);
        for (int step = 0; step < steps; ++step, ring.next()) {
          s.empty[ring.stage].wait(ring.parity ^ 1);
          bring<product>(s, ring.stage, a_map, b_map, t, step);
        }
      }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    for (int i = blockIdx.x; tiles.find(i, t); i += gridDim.x) {
      float c[128] = {};  // stays for an expert without rows
      const int steps = steps_of<product>(args, t);
      multiply<product>(s, ring, t, steps, c);
      write<product>(s.out[threadIdx.x / 32], args, t, c);
    }
  }
}

static int multiprocessors() {
  static const int count = [] {
    int device = 0, n = 0;
    SLUICE_CUDA(cudaGetDevice(&device));
    SLUICE_CUDA(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
    return n;
  }();
  return count;
}

template <Product product>
void grouped_wgmma(const Context& ctx, const Tensor& a, const Tensor& b, const GroupedArgs& args) {
  SLUICE_CHECK(args.E <= kMaxExperts, args.E, " experts, at most ", kMaxExperts);
  SLUICE_CUDA(cudaFuncSetAttribute(wgmma_kernel<product>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int rows_a = product == Product::weight ? 64 : kM,
            rows_b = product == Product::forward ? kN : 64;
  wgmma_kernel<product><<<unsigned(multiprocessors()), kThreads, kSharedBytes, ctx.stream>>>(
      tensor_map(a, rows_a), tensor_map(b, rows_b), args);
  SLUICE_LAUNCHED(ctx.stream);
}

template void grouped_wgmma<Product::forward>(const Context&, const Tensor&, const Tensor&,
                                              const GroupedArgs&);
template void grouped_wgmma<Product::data>(const Context&, const Tensor&, const Tensor&,
                                           const GroupedArgs&);
template void grouped_wgmma<Product::weight>(const Context&, const Tensor&, const Tensor&,
                                             const GroupedArgs&);

}  // namespace sluice::cuda
