// kernels/sample/sample.cu -- a CTA a row. Weights are whole numbers of 2^-44, so that sums of them
// have no order and every cut is exact: what differs from the reference differs by that rounding.
//
// bf16 logits are 16-bit keys. What top_k and top_p keep is everything above some key and, of that
// key, the lowest ids: found by two histograms, of the key's upper and lower byte.
#include <vector>

#include "kernels/base/cuda_check.h"
#include "kernels/device/vec.cuh"
#include "kernels/sample/cuda_rule.h"
#include "kernels/tensor/rng.h"

namespace sluice::cuda {
namespace {

using Mass = unsigned long long;
constexpr int kThreads = 1024, kBins = 256;
constexpr float kOne = float(1ull << 44);

// Grows with the logit; -0 and 0 are one key, as they are one number.
__device__ unsigned key_of(bf16 x) {
  const unsigned bits = __bfloat16_as_ushort(x);
  if ((bits & 0x7fff) == 0) return 0x8000;
  return bits & 0x8000 ? 0xffff & ~bits : bits | 0x8000;
}

template <class T, class Op>
__device__ T block_all(T x, T* memory, Op op) {  // every thread gets the result
  for (int offset = 16; offset > 0; offset /= 2) x = op(x, __shfl_xor_sync(0xffffffffu, x, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) memory[threadIdx.x / 32] = x;
  __syncthreads();
  x = memory[threadIdx.x % 32];
  for (int offset = 16; offset > 0; offset /= 2) x = op(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

struct Row {
  const bf16* x;
  int V;
  float top, inverse;

  __device__ Mass weight(int i) const {
    return __float2ull_rn(expf((__bfloat162float(x[i]) - top) * inverse) * kOne);
  }
};

// What is kept: keys above `key`, and of that key ids below `ids`.
struct Kept {
  unsigned key = 0;
  int ids = 0x7fffffff;
  __device__ bool operator()(unsigned k, int i) const { return k > key || (k == key && i < ids); }
};

struct Shared {
  Mass mass[kBins], reduce[32];
  unsigned count[kBins];
  // What the search found: the bin, and what lies above it.
  int bin;
  Mass mass_above;
  unsigned count_above;
};

// The highest bin at which enough has come together, counting from the top, with what came before.
__device__ void find_bin(Shared& s, bool by_count, Mass need, Mass mass_above,
                         unsigned count_above) {
  __syncthreads();
  if (threadIdx.x == 0) {
    int bin = kBins - 1;
    for (; bin > 0; --bin) {
      if (by_count ? count_above + s.count[bin] >= need : mass_above + s.mass[bin] >= need) break;
      mass_above += s.mass[bin], count_above += s.count[bin];
    }
    s.bin = bin, s.mass_above = mass_above, s.count_above = count_above;
  }
  __syncthreads();
}

// Histograms of a byte of the keys: all of them, or those whose upper byte is `upper`.
__device__ void count_bins(const Row& r, Shared& s, const Kept& kept, int upper) {
  __syncthreads();
  for (int b = threadIdx.x; b < kBins; b += kThreads) s.mass[b] = 0, s.count[b] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < r.V; i += kThreads) {
    const unsigned k = key_of(r.x[i]);
    if (!kept(k, i) || (upper >= 0 && int(k >> 8) != upper)) continue;
    const unsigned bin = upper >= 0 ? k & 255 : k >> 8;
    atomicAdd(&s.count[bin], 1u);
    atomicAdd(&s.mass[bin], r.weight(i));
  }
}

// The id below which there are `many` kept ids of the key.
__device__ int id_bound(const Row& r, Shared& s, const Kept& kept, unsigned key, unsigned many) {
  int low = 0, high = r.V;  // the smallest bound with at least so many below
  while (low < high) {
    const int middle = (low + high) / 2;
    unsigned n = 0;
    for (int i = threadIdx.x; i < middle; i += kThreads) n += key_of(r.x[i]) == key && kept(key, i);
    n = unsigned(block_all(Mass(n), s.reduce, [](Mass a, Mass b) { return a + b; }));
    n >= many ? high = middle : low = middle + 1;
  }
  return low;
}

// Of what is kept, the highest ids by key until there are `need` of them, or so much mass.
__device__ Kept cut(const Row& r, Shared& s, const Kept& kept, bool by_count, Mass need) {
  count_bins(r, s, kept, -1);
  find_bin(s, by_count, need, 0, 0);
  const int upper = s.bin;
  const Mass mass_above = s.mass_above;
  const unsigned count_above = s.count_above;
  count_bins(r, s, kept, upper);
  find_bin(s, by_count, need, mass_above, count_above);
  const unsigned key = unsigned(upper) << 8 | unsigned(s.bin), there = s.count[s.bin];
  if (there == 0) return kept;  // less than asked for: all of it
  // All of one key weigh the same.
  const Mass each = s.mass[s.bin] / there;
  const Mass missing = by_count ? need - s.count_above : need - min(need, s.mass_above);
  const unsigned many = by_count ? unsigned(missing)
                        : each == 0
                            ? there
                            : unsigned(min(Mass(there), max(Mass(1), (missing + each - 1) / each)));
  return {key, many >= there && kept.key != key ? r.V : id_bound(r, s, kept, key, many)};
}

// The first kept id, in order of id, at which the cumulative mass passes `target`.
__device__ int invert(const Row& r, Shared& s, const Kept& kept, Mass target) {
  Mass before = 0;
  for (int begin = 0; begin < r.V; begin += kThreads) {
    const int i = begin + threadIdx.x;
    const bool mine = i < r.V && kept(key_of(r.x[i]), i);
    const Mass w = mine ? r.weight(i) : 0;
    const Mass tile = block_all(w, s.reduce, [](Mass a, Mass b) { return a + b; });
    if (before + tile <= target) {
      before += tile;
      continue;
    }
    // In this tile: inclusive sums by warp, then the warps before.
    Mass sum = w;
    for (int offset = 1; offset < 32; offset *= 2) {
      const Mass other = __shfl_up_sync(0xffffffffu, sum, offset);
      if (int(threadIdx.x) % 32 >= offset) sum += other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31) s.reduce[threadIdx.x / 32] = sum;
    __syncthreads();
    for (int p = 0; p < int(threadIdx.x) / 32; ++p) sum += s.reduce[p];
    __syncthreads();
    const int found = w > 0 && before + sum > target ? i : r.V;
    return int(block_all(Mass(found), s.reduce, [](Mass a, Mass b) { return min(a, b); }));
  }
  return -1;  // not reached: target is below the mass
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(Rows logits, int V, const SampleOnDevice* rules, int* token, float* logprob) {
  __shared__ Shared s;
  const int n = blockIdx.x;
  const SampleOnDevice rule = rules[n];
  Row r{logits[n], V, 0, rule.inverse_temperature};
  // The largest key with the lowest id; NaN anywhere makes the key larger than any number's.
  Mass best = 0;
  for (int i = threadIdx.x; i < V; i += kThreads) {
    const unsigned k = __hisnan(r.x[i]) ? 0x10000 : key_of(r.x[i]);
    best = max(best, Mass(k) << 32 | (0xffffffffu - unsigned(i)));
  }
  best = block_all(best, s.reduce, [](Mass a, Mass b) { return max(a, b); });
  int id = int(0xffffffffu - unsigned(best));
  r.top = __bfloat162float(r.x[id]);
  if (best >> 32 == 0x10000 || isinf(r.top)) {
    if (threadIdx.x == 0) token[n] = -1, logprob[n] = NAN;
    return;
  }
  const auto mass = [&](const Kept& kept) {
    Mass sum = 0;
    for (int i = threadIdx.x; i < V; i += kThreads)
      if (kept(key_of(r.x[i]), i)) sum += r.weight(i);
    return block_all(sum, s.reduce, [](Mass a, Mass b) { return a + b; });
  };
  Kept kept;
  if (!rule.greedy && rule.top_k > 0 && rule.top_k < V)
    kept = cut(r, s, kept, true, Mass(rule.top_k));
  Mass total = mass(kept);
  if (!rule.greedy && rule.top_p < 1) {
    kept = cut(r, s, kept, false, Mass(ceil(rule.top_p * double(total))));
    total = mass(kept);
  }
  if (!rule.greedy) id = invert(r, s, kept, min(Mass(rule.u * double(total)), total - 1));
  if (threadIdx.x == 0) {
    token[n] = id;
    logprob[n] = float(double((__bfloat162float(r.x[id]) - r.top)) * double(r.inverse) -
                       log(double(total) / double(kOne)));
  }
}

}  // namespace

void sample(const Context& ctx, const Sample& a, const Tensor& memory) {
  const int64_t N = a.logits.dim(0), V = a.logits.dim(1);
  if (N == 0) return;
  std::vector<SampleOnDevice> rules;
  for (const SampleRule& r : a.rules)
    rules.push_back({.greedy = r.temperature == 0,
                     .top_k = int(std::min<int64_t>(r.top_k, V)),
                     .inverse_temperature = float(1 / (r.temperature > 0 ? r.temperature : 1.0)),
                     .top_p = r.top_p,
                     .u = random_uniform(r.key, uint64_t(r.position))});
  // From pageable memory: the call returns when it has been read.
  SLUICE_CUDA(cudaMemcpyAsync(memory.data, rules.data(), rules.size() * sizeof(SampleOnDevice),
                              cudaMemcpyHostToDevice, ctx.stream));
  sample_kernel<<<unsigned(N), kThreads, 0, ctx.stream>>>(
      rows_of(a.logits), int(V), static_cast<const SampleOnDevice*>(memory.data),
      a.token.as<int32_t>(), a.logprob.as<float>());
  SLUICE_LAUNCHED(ctx.stream);
}

}  // namespace sluice::cuda
