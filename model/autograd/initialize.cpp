// model/autograd/initialize.cpp -- initial values, element by element.
#include <algorithm>
#include <cmath>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/float_dispatch.h"
#include "kernels/tensor/rng.h"
#include "model/autograd/param_store.h"

namespace sluice {

static double draw(const Init& init, uint64_t key, uint64_t i) {
  switch (init.kind) {
    case Init::Kind::constant: return init.a;
    case Init::Kind::normal: return init.a * random_normal(key, i);
    case Init::Kind::uniform: return init.a + (init.b - init.a) * random_uniform(key, i);
    case Init::Kind::log_uniform_log:
      return std::log(init.a + (init.b - init.a) * random_uniform(key, i));
    case Init::Kind::inverse_softplus_log_uniform: {
      const double la = std::log(init.a), lb = std::log(init.b);
      const double x = std::exp(la + (lb - la) * random_uniform(key, i));
      return x + std::log(-std::expm1(-x));  // softplus(this) == x
    }
  }
  return 0;
}

// Elements begin .. end of `host`, whose first one is element `first` of the parameter.
template <class T>
static void draw_range(const Init& init, uint64_t key, int64_t first, int64_t begin, int64_t end,
                       T* host) {
  for (int64_t i = begin; i < end; ++i) host[i] = T(draw(init, key, uint64_t(first + i)));
}

void initialize(ParamStore& params, uint64_t seed, const Context& host) {
  constexpr int64_t kBlock = 1 << 16;
  for (const Shard& shard : params.shards()) {
    const ParamSpec& spec = params.spec(shard.id);
    const uint64_t key = rng_key(seed, spec.name);
    const int64_t n = shard.master.numel();
    Buffer drawn(shard.master.dtype, {n});
    for_float_type(drawn.view(), [&]<class T>(T) {
      parallel_for(host, (n + kBlock - 1) / kBlock, [&](int64_t block) {
        draw_range(spec.init, key, shard.begin, block * kBlock, std::min(n, (block + 1) * kBlock),
                   drawn.view().as<T>());
      });
    });
    copy(drawn.view(), shard.master);
  }
}

}  // namespace sluice
