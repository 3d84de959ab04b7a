// kernels/moe/grouped_linear/cuda.cuh -- what the two CUDA paths share: which products there are,
// and the list of their tiles.
#pragma once

#include "kernels/moe/grouped_linear/grouped_linear.h"

namespace sluice::cuda {

// out[m, n] = sum over k of a[m, k] b[k, n], an expert at a time:
//   forward   y [rows, F]  = x [rows, D]    w^T [D, F]
//   data      dx [rows, D] = dy [rows, F]   w [F, D]
//   weight    dw [F, D]    = dy^T [F, rows] x [rows, D]
enum class Product : uint8_t { forward, data, weight };

struct GroupedArgs {
  const int* offsets;  // [E + 1]
  int E, D, F;
  void* out;       // bf16 [R, F or D], or f32 [E, F, D]
  int64_t stride;  // of its rows
  int add;
};

struct GroupedTile {
  int expert, m, n;  // where it begins in the expert's product
  int begin, rows;   // of the expert
};

// The tiles of all experts as one list, those of an expert with m first. A CTA asks for ascending
// tiles, so that finding them all is one walk over the experts. Reads the offsets on the device;
// their number alone is in the grid.
template <Product product, int kM, int kN>
class GroupedTiles {
 public:
  __device__ GroupedTiles(const int* offsets, const GroupedArgs& a)
      : offsets_(offsets), E_(a.E), M_(a.F), N_(product == Product::forward ? a.F : a.D) {}

  __device__ bool find(int i, GroupedTile& t) {
    for (; e_ < E_; ++e_) {
      const int begin = offsets_[e_], rows = offsets_[e_ + 1] - begin;
      const int tiles_m = ((product == Product::weight ? M_ : rows) + kM - 1) / kM;
      const int tiles = tiles_m * ((N_ + kN - 1) / kN);
      if (i < first_ + tiles) {
        const int in = i - first_;
        t = {e_, in % tiles_m * kM, in / tiles_m * kN, begin, rows};
        return true;
      }
      first_ += tiles;
    }
    return false;
  }

 private:
  const int* offsets_;
  int E_, M_, N_, e_ = 0, first_ = 0;
};

// Any shape, stride and alignment.
template <Product product>
void grouped_general(const Context& ctx, const Tensor& a, const Tensor& b, const GroupedArgs& args);
// Rows of 16 bytes, wgmma.
template <Product product>
void grouped_wgmma(const Context& ctx, const Tensor& a, const Tensor& b, const GroupedArgs& args);

}  // namespace sluice::cuda
