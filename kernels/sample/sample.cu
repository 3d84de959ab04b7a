// kernels/sample/sample.cu -- a CTA a row. Weights are whole numbers of 2^-44, so that sums of them
// have no order and every cut is exact: what differs from the reference differs by that rounding.
//
// bf16 logits are 16-bit keys. What top_k and top_p keep is everything above some key and, of that
// key, the lowest ids: found by counting the keys' upper bytes and then, from the top, the lower
// bytes below one upper one.
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

  __device__ Mass weight(float logit) const {
    return __float2ull_rn(expf((logit - top) * inverse) * kOne);
  }
  __device__ Mass weight_of(unsigned key) const {
    const unsigned bits = key & 0x8000 ? key & 0x7fff : 0xffff & ~key;
    return weight(__bfloat162float(__ushort_as_bfloat16(uint16_t(bits))));
  }
  __device__ Mass weight_at(int i) const { return weight(__bfloat162float(x[i])); }
};

// What is kept: keys above `key`, and of that key ids below `ids`.
struct Kept {
  unsigned key = 0;
  int ids = 0x7fffffff;
  __device__ bool operator()(unsigned k, int i) const { return k > key || (k == key && i < ids); }
};

struct Shared {
  Mass reduce[kThreads / 32];
  unsigned upper[kBins], lower[kBins];  // how many kept ids have this byte
  // What a search found: the byte, and what lies above it.
  int bin;
  Mass mass_above;
  unsigned count_above;
};

// How many kept ids have each upper byte, or each lower byte below that upper one. Equal bytes of a
// warp are added at once: logits have few different upper ones.
__device__ void count_bytes(const Row& r, Shared& s, const Kept& kept, int upper) {
  unsigned* bins = upper < 0 ? s.upper : s.lower;
  __syncthreads();
  for (int b = threadIdx.x; b < kBins; b += kThreads) bins[b] = 0;
  __syncthreads();
  for (int begin = 0; begin < r.V; begin += kThreads) {
    const int i = begin + threadIdx.x;
    const unsigned k = i < r.V ? key_of(r.x[i]) : 0;
    const bool counts = i < r.V && kept(k, i) && (upper < 0 || int(k >> 8) == upper);
    const unsigned byte = !counts ? kBins : upper < 0 ? k >> 8 : k & 255;
    const unsigned equal = __match_any_sync(0xffffffffu, byte);
    if (counts && int(threadIdx.x) % 32 == __ffs(int(equal)) - 1)
      atomicAdd(&bins[byte], unsigned(__popc(equal)));
  }
  __syncthreads();
}

// Of one upper byte, what all ids of a lower byte weigh.
__device__ Mass bin_mass(const Row& r, const Shared& s, int upper, int lower) {
  if (s.lower[lower] == 0) return 0;
  return s.lower[lower] * r.weight_of(unsigned(upper) << 8 | unsigned(lower));
}

// The smallest id at which the sum of value(0), value(1), ... passes `target`; it does.
template <class Value>
__device__ int locate(const Row& r, Shared& s, Mass target, Value value) {
  constexpr int kWarps = kThreads / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int each = (r.V + kWarps - 1) / kWarps;  // a warp sums as many ids in a row
  const auto add = [](Mass a, Mass b) { return a + b; };
  Mass sum = 0;
  for (int i = warp * each + lane; i < min((warp + 1) * each, r.V); i += 32) sum += value(i);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  __syncthreads();
  if (lane == 0) s.reduce[warp] = sum;
  __syncthreads();
  Mass before = 0;
  int w = 0;
  for (; w + 1 < kWarps && before + s.reduce[w] <= target; ++w) before += s.reduce[w];
  for (int begin = w * each; begin < r.V; begin += kThreads) {
    const int i = begin + threadIdx.x;
    const Mass mine = i < r.V ? value(i) : 0;
    const Mass tile = block_all(mine, s.reduce, add);
    if (before + tile <= target) {
      before += tile;
      continue;
    }
    // In this tile: inclusive sums by warp, then the warps before.
    Mass up_to = mine;
    for (int offset = 1; offset < 32; offset *= 2) {
      const Mass other = __shfl_up_sync(0xffffffffu, up_to, offset);
      if (lane >= offset) up_to += other;
    }
    __syncthreads();
    if (lane == 31) s.reduce[warp] = up_to;
    __syncthreads();
    up_to += before;
    for (int p = 0; p < warp; ++p) up_to += s.reduce[p];
    const Mass found = mine > 0 && up_to > target ? Mass(i) : Mass(r.V);
    return int(block_all(found, s.reduce, [](Mass a, Mass b) { return min(a, b); }));
  }
  return r.V - 1;
}

// Of what is kept, the highest ids by key, equals by id, until there are `need` of them, or so much
// mass.
__device__ Kept cut(const Row& r, Shared& s, const Kept& kept, bool by_count, Mass need) {
  count_bytes(r, s, kept, -1);
  Mass mass = 0;  // of what lies above the upper byte
  unsigned count = 0;
  for (int upper = kBins - 1; upper >= 0; --upper) {
    if (s.upper[upper] == 0) continue;
    if (by_count && count + s.upper[upper] < need) {
      count += s.upper[upper];
      continue;
    }
    count_bytes(r, s, kept, upper);
    if (threadIdx.x == 0) {
      s.bin = -1;
      for (int lower = kBins - 1; lower >= 0 && s.bin < 0; --lower) {
        const Mass here = by_count ? 0 : bin_mass(r, s, upper, lower);
        if (s.lower[lower] > 0 && (by_count ? count + s.lower[lower] >= need : mass + here >= need))
          s.bin = lower;
        else
          mass += here, count += s.lower[lower];
      }
      s.mass_above = mass, s.count_above = count;
    }
    __syncthreads();
    mass = s.mass_above, count = s.count_above;
    const int lower = s.bin;
    if (lower < 0) continue;
    const unsigned key = unsigned(upper) << 8 | unsigned(lower), there = s.lower[lower];
    const Mass each = max(Mass(1), r.weight_of(key));  // all of one key weigh the same
    const Mass missing = need - min(need, by_count ? Mass(count) : mass);
    const Mass many = by_count ? missing : max(Mass(1), (missing + each - 1) / each);
    const auto is = [&](int i) { return Mass(key_of(r.x[i]) == key && kept(key, i)); };
    return {key, locate(r, s, min(many, Mass(there)) - 1, is) + 1};
  }
  return kept;  // there is less than was asked for
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
      if (kept(key_of(r.x[i]), i)) sum += r.weight_at(i);
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
  if (!rule.greedy)
    id = locate(r, s, min(Mass(rule.u * double(total)), total - 1),
                [&](int i) { return kept(key_of(r.x[i]), i) ? r.weight_at(i) : 0; });
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
