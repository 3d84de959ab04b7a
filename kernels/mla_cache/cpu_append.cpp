// kernels/mla_cache/cpu_append.cpp -- rows copied into place, their rope slice rotated.
#include <algorithm>

#include "kernels/mla/sizes.h"
#include "kernels/mla_cache/sizes.h"
#include "kernels/tensor/float_dispatch.h"

namespace sluice::cpu {

void latent_append(const Context&, const LatentAppend& a) {
  const int64_t S = a.latents.dim(0), r = a.c.dim(1), rope = a.k_rope.dim(1);
  for_float_type(a.c, [&]<class T>(T) {
    for (int64_t slot = 0; slot < S; ++slot) {
      const mla_cache::Rows rows = mla_cache::rows_of(a, slot);
      T* to = a.latents.row<T>(slot) + rows.past * (r + rope);
      for (int64_t i = 0; i < rows.count; ++i, to += r + rope) {
        std::copy_n(a.c.row<T>(rows.first + i), r, to);
        std::copy_n(a.k_rope.row<T>(rows.first + i), rope, to + r);
        if (a.rope_theta > 0) mla::rotate(to + r, rope, rows.past + i, a.rope_theta, 1);
      }
    }
  });
}

}  // namespace sluice::cpu
