// model/autograd/initialize.cpp -- initial values, element by element.
#include <cmath>

#include "kernels/tensor/buffer.h"
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

void initialize(ParamStore& params, uint64_t seed) {
  for (const Shard& shard : params.shards()) {
    const ParamSpec& spec = params.spec(shard.id);
    const uint64_t key = rng_key(seed, spec.name);
    const int64_t n = shard.master.numel();
    Buffer host(shard.master.dtype, {n});
    for (int64_t i = 0; i < n; ++i) {
      const double x = draw(spec.init, key, uint64_t(shard.begin + i));
      if (host.view().dtype == DType::f64)
        host.view().as<double>()[i] = x;
      else
        host.view().as<float>()[i] = float(x);
    }
    copy(host.view(), shard.master);
  }
}

}  // namespace sluice
