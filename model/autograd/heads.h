// model/autograd/heads.h -- ops see heads where the tape keeps rows.
#pragma once

#include "model/autograd/tape.h"

namespace sluice {

inline Tensor heads(const Tensor& t, int64_t H) {  // [N, H*C] -> [N, H, C]
  return t.reshape({t.dim(0), H, t.dim(1) / H});
}
inline Grad heads(const Grad& g, int64_t H) {
  return {heads(g.t, H), g.add};
}

}  // namespace sluice
