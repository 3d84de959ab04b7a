// kernels/tensor/tensor.cpp -- views and their checks.
#include "kernels/tensor/tensor.h"

#include <algorithm>

namespace sluice {

const char* name(DType d) {
  switch (d) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
  }
  return "?";
}

const char* name(Device d) {
  return d == Device::cpu ? "cpu" : "cuda";
}

int64_t size_of(DType d) {
  switch (d) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

static void set_dense_strides(Tensor& t) {
  int64_t step = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    t.stride[i] = step;
    step *= t.shape[i];
  }
}

Tensor make_tensor(void* data, DType dtype, Device device, std::initializer_list<int64_t> shape) {
  SLUICE_CHECK(shape.size() <= Tensor::kMaxRank, "rank ", shape.size());
  Tensor t{.data = data, .dtype = dtype, .device = device, .rank = int(shape.size())};
  std::copy(shape.begin(), shape.end(), t.shape.begin());
  for (int i = 0; i < t.rank; ++i) SLUICE_CHECK(t.shape[i] >= 0, "dim ", i, " is ", t.shape[i]);
  set_dense_strides(t);
  return t;
}

bool Tensor::dense() const {
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    if (stride[i] != step && shape[i] > 1) return false;
    step *= shape[i];
  }
  return true;
}

static void* offset(const Tensor& t, int64_t elements) {
  return t.data ? static_cast<char*>(t.data) + elements * size_of(t.dtype) : nullptr;
}

Tensor Tensor::rows(int64_t begin, int64_t count) const {
  SLUICE_CHECK(rank >= 1 && begin >= 0 && count >= 0 && begin + count <= shape[0], "rows ", begin,
               "..", begin + count, " of ", to_string(*this));
  Tensor t = *this;
  t.shape[0] = count;
  t.data = offset(*this, begin * stride[0]);
  return t;
}

Tensor Tensor::columns(int64_t begin, int64_t count) const {
  SLUICE_CHECK(rank == 2 && begin >= 0 && count >= 0 && begin + count <= shape[1], "columns ",
               begin, "..", begin + count, " of ", to_string(*this));
  Tensor t = *this;
  t.shape[1] = count;
  t.data = offset(*this, begin);
  return t;
}

Tensor Tensor::reshape(std::initializer_list<int64_t> new_shape) const {
  Tensor t = make_tensor(data, dtype, device, new_shape);
  SLUICE_CHECK(t.numel() == numel(), to_string(*this), " cannot become ", to_string(t));
  if (dense()) return t;
  SLUICE_CHECK(rank == 2 && t.rank >= 2 && t.shape[0] == shape[0], "strided ", to_string(*this),
               " can only split its last dimension, asked for ", to_string(t));
  t.stride[0] = stride[0];
  return t;
}

static std::string shape_string(const int64_t* dims, int rank) {
  std::string s = "[";
  for (int i = 0; i < rank; ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
  return s + "]";
}

std::string to_string(const Tensor& t) {
  if (!t) return "missing";
  return cat(name(t.dtype), " ", shape_string(t.shape.data(), t.rank), " on ", name(t.device));
}

void check_shape(const Tensor& t, const char* label, std::initializer_list<int64_t> shape,
                 DType dtype, Device device, SourceLine at) {
  if (t.rank == int(shape.size()) && std::equal(shape.begin(), shape.end(), t.shape.begin()) &&
      t.dtype == dtype && t.device == device)
    return;
  fail(at.file, at.line, "shape",
       cat(label, " is ", to_string(t), ", expected ", name(dtype), " ",
           shape_string(shape.begin(), int(shape.size())), " on ", name(device)));
}

void check_shape(const Tensor& t, const char* label, std::initializer_list<int64_t> shape,
                 const Tensor& like, SourceLine at) {
  check_shape(t, label, shape, like.dtype, like.device, at);
}

}  // namespace sluice
