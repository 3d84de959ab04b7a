// tests/kernels/moe_gpu_problem.h -- integers that an op reads where it runs.
#pragma once

#include "tests/support/gpu_problem.h"

namespace sluice::test {

// Integers where the op runs.
struct Integers {
  explicit Integers(Buffer on_host) : cpu(std::move(on_host)) {}
  Tensor on(Device d) {
    if (d == Device::cpu) return cpu.view();
    if (!cuda.view()) {
      Tensor like = cpu.view();
      like.device = Device::cuda;
      cuda = Buffer(like);
      copy(cpu.view(), cuda.view());
    }
    return cuda.view();
  }
  Buffer cpu, cuda;
};
inline Buffer on_host(const Tensor& t) {
  Tensor like = t;
  like.device = Device::cpu;
  Buffer b(like);
  copy(t, b.view());
  return b;
}
inline Buffer on_gpu(const Tensor& t) {
  Tensor like = t;
  like.device = Device::cuda;
  Buffer b(like);
  copy(t, b.view());
  return b;
}

}  // namespace sluice::test
