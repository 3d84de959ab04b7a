// tests/support/cpu_context.h -- a CPU context with everything an op may ask for.
#pragma once

#include "kernels/tensor/context.h"

namespace sluice::test {

// Poisons arena memory: what an op reads without having written it is NaN.
struct CpuContext {
  explicit CpuContext(Mode mode = Mode::run, int threads = 2, int64_t arena_bytes = 256 << 20)
      : arena(Device::cpu, arena_bytes), pool(threads) {
    arena.set_poison(Arena::Poison::on);
    ctx = {.mode = mode, .arena = &arena, .threads = &pool};
  }
  operator const Context&() const { return ctx; }

  Arena arena;
  ThreadPool pool;
  Context ctx;
};

}  // namespace sluice::test
