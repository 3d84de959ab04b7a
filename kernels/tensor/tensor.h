// kernels/tensor/tensor.h -- a view of row-major memory, its last dimension dense.
// Owners are Buffer (one allocation) and Arena (planned memory of a step).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/base/check.h"

namespace sluice {

enum class DType : uint8_t { f32, f64, bf16, i32, i64, u8 };
enum class Device : uint8_t { cpu, cuda };

const char* name(DType);
const char* name(Device);
int64_t size_of(DType);  // bytes an element
// What sums of this type are kept in: statistics, parameter gradients. f32 for bf16, else itself.
constexpr DType sum_type(DType d) {
  return d == DType::bf16 ? DType::f32 : d;
}

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
}

struct Tensor {
  static constexpr int kMaxRank = 5;

  void* data = nullptr;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  int rank = 0;  // 0: no tensor (an optional argument that was left out)
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};  // in elements; stride[rank-1] is 1

  // True if there is a tensor at all. In plan mode a tensor exists although its memory does not.
  explicit operator bool() const { return rank > 0; }

  int64_t dim(int i) const {
    SLUICE_CHECK(i >= -rank && i < rank, "dim ", i, " of a rank-", rank, " tensor");
    return shape[i < 0 ? i + rank : i];
  }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  int64_t bytes() const { return numel() * size_of(dtype); }  // of the elements, without gaps
  bool dense() const;                                         // no gaps between rows

  template <class T>
  T* as() const {
    SLUICE_CHECK(dtype == dtype_of<T>(), "tensor is ", name(dtype), ", asked for ",
                 name(dtype_of<T>()));
    return static_cast<T*>(data);
  }
  // Row n of the first dimension: a slice of a fused projection has stride[0] > shape[1].
  template <class T>
  T* row(int64_t n) const {
    return as<T>() + n * stride[0];
  }

  Tensor rows(int64_t begin, int64_t count) const;     // [N, ...] -> [count, ...]
  Tensor columns(int64_t begin, int64_t count) const;  // [N, C] -> [N, count], strided
  // Same elements, new shape. Leading dimensions may be split or merged freely if dense; a strided
  // [N, C] may only split its last dimension: [N, H * K] -> [N, H, K].
  Tensor reshape(std::initializer_list<int64_t> shape) const;
};

// A dense view of `data`.
Tensor make_tensor(void* data, DType dtype, Device device, std::initializer_list<int64_t> shape);

// A gradient that an op produces: written when it is the first for its value in this backward pass
// (or, for a parameter, in this step), added to otherwise. The tape decides; nothing is
// zero-filled.
struct Grad {
  Tensor t;
  bool add = false;

  explicit operator bool() const { return bool(t); }
};

std::string to_string(const Tensor& t);  // "f32 [3, 5] on cpu"

// Where a check stands in the source. (std::source_location, which clang 14 does not have yet.)
struct SourceLine {
  const char* file;
  int line;
  static constexpr SourceLine here(const char* file = __builtin_FILE(),
                                   int line = __builtin_LINE()) {
    return {file, line};
  }
};

// Throws unless `t` has exactly this shape, dtype and device, `like` giving the last two. The
// message has the caller's line and `label`: "kernels/x/x.cpp:17: shape: w is f32 [7] on cpu,
// expected ...".
void check_shape(const Tensor& t, const char* label, std::initializer_list<int64_t> shape,
                 DType dtype, Device device, SourceLine at = SourceLine::here());
void check_shape(const Tensor& t, const char* label, std::initializer_list<int64_t> shape,
                 const Tensor& like, SourceLine at = SourceLine::here());

}  // namespace sluice
