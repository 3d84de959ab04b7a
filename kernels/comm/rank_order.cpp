// kernels/comm/rank_order.cpp -- sums and maxima block by block, rank by rank.
#include "kernels/comm/rank_order.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace sluice {
namespace {

// A NaN stays, whoever has it.
template <class T>
T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

// T is unsigned for sums of integers: they wrap.
template <class T, class Combine>
void reduce(std::span<const void* const> x, std::span<void* const> out, int64_t count,
            Combine combine) {
  constexpr int64_t kBlock = 1024;  // stays in L1
  std::array<T, kBlock> r;
  for (int64_t i0 = 0; i0 < count; i0 += kBlock) {
    const int64_t n = std::min(kBlock, count - i0);
    std::copy_n(static_cast<const T*>(x[0]) + i0, n, r.data());
    for (size_t p = 1; p < x.size(); ++p) {
      const T* v = static_cast<const T*>(x[p]) + i0;
      for (int64_t i = 0; i < n; ++i) r[size_t(i)] = combine(r[size_t(i)], v[i]);
    }
    for (void* const o : out) std::copy_n(r.data(), n, static_cast<T*>(o) + i0);
  }
}

template <class T, class Unsigned>
void reduce(RankReduce how, std::span<const void* const> x, std::span<void* const> out,
            int64_t count) {
  if (how == RankReduce::sum)
    reduce<Unsigned>(x, out, count, [](Unsigned a, Unsigned b) { return a + b; });
  else
    reduce<T>(x, out, count, larger<T>);
}

}  // namespace

void reduce_ranks(RankReduce how, DType dtype, std::span<const void* const> x,
                  std::span<void* const> out, int64_t count) {
  switch (dtype) {
    case DType::f32: return reduce<float, float>(how, x, out, count);
    case DType::f64: return reduce<double, double>(how, x, out, count);
    case DType::i32: return reduce<int32_t, uint32_t>(how, x, out, count);
    case DType::i64: return reduce<int64_t, uint64_t>(how, x, out, count);
    default: return;  // Comm has refused it
  }
}

void copy_elements(const Tensor& from, int64_t from_begin, const Tensor& to, int64_t to_begin,
                   int64_t count) {
  if (count == 0) return;
  const int64_t size = size_of(from.dtype);
  const char* f = static_cast<const char*>(from.data) + from_begin * size;
  char* t = static_cast<char*>(to.data) + to_begin * size;
  if (f != t) std::memcpy(t, f, size_t(count * size));
}

}  // namespace sluice
