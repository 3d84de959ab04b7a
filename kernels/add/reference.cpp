// kernels/add/reference.cpp -- plain loops; never optimised.
#include "kernels/add/add.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::reference {

void add_forward(const Context&, const AddForward& a) {
  for_float_type(a.y, [&]<class T>(T) {
    for (int64_t i = 0; i < a.y.numel(); ++i) a.y.as<T>()[i] = a.a.as<T>()[i] + a.b.as<T>()[i];
  });
}

void add_backward(const Context&, const AddBackward& a) {
  for_float_type(a.dy, [&]<class T>(T) {
    for (const Grad* g : {&a.da, &a.db})
      for (int64_t i = 0; i < a.dy.numel(); ++i) put(g->t.as<T>()[i], a.dy.as<T>()[i], g->add);
  });
}

}  // namespace sluice::reference
