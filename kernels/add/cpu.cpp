// kernels/add/cpu.cpp -- memory bound: blocks of elements.
#include <algorithm>

#include "kernels/add/add.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

constexpr int64_t kElements = 1 << 14;

template <class Body>
static void in_blocks(const Context& ctx, int64_t n, Body body) {
  parallel_for(ctx, (n + kElements - 1) / kElements, [&](int64_t block) {
    body(block * kElements, std::min(n, (block + 1) * kElements));
  });
}

void add_forward(const Context& ctx, const AddForward& a) {
  for_float_type(a.y, [&]<class T>(T) {
    in_blocks(ctx, a.y.numel(), [&](int64_t begin, int64_t end) {
      const T *x = a.a.as<T>(), *z = a.b.as<T>();
      T* y = a.y.as<T>();
      for (int64_t i = begin; i < end; ++i) y[i] = x[i] + z[i];
    });
  });
}

void add_backward(const Context& ctx, const AddBackward& a) {
  for_float_type(a.dy, [&]<class T>(T) {
    in_blocks(ctx, a.dy.numel(), [&](int64_t begin, int64_t end) {
      for (const Grad* g : {&a.da, &a.db}) {
        T* to = g->t.as<T>();
        const T* dy = a.dy.as<T>();
        for (int64_t i = begin; i < end; ++i) to[i] = g->add ? to[i] + dy[i] : dy[i];
      }
    });
  });
}

}  // namespace sluice::cpu
