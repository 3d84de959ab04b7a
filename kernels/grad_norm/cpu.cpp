// kernels/grad_norm/cpu.cpp -- blocks of elements in parallel, their sums in order.
#include <algorithm>
#include <vector>

#include "kernels/grad_norm/grad_norm.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/lanes.h"

namespace sluice::cpu {

void grad_norm(const Context& ctx, const GradNorm& a, Tensor parts) {
  struct Block {
    size_t tensor;
    int64_t begin;
  };
  std::vector<Block> blocks;
  for (size_t i = 0; i < a.grads.size(); ++i)
    for (int64_t b = 0; b < a.grads[i].dim(0); b += kGradNormElements) blocks.push_back({i, b});
  double* sums = parts.as<double>();
  parallel_for(ctx, int64_t(blocks.size()), [&](int64_t block) {
    const auto [tensor, begin] = blocks[size_t(block)];
    const Tensor& g = a.grads[tensor];
    const int64_t first = begin, n = std::min(g.dim(0) - first, kGradNormElements);
    for_float_type(g, [&]<class T>(T) {
      const T* x = g.as<T>() + first;
      sums[block] = lane_sum<double>(n, [&](int64_t i) { return double(x[i]) * x[i]; });
    });
  });
  double sum = 0;
  for (size_t b = 0; b < blocks.size(); ++b) sum += sums[b];
  *a.sum_of_squares.as<double>() = sum;
}

}  // namespace sluice::cpu
