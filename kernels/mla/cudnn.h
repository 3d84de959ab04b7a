// kernels/mla/cudnn.h -- cuDNN's fused attention: one graph a kind of call, its plan made once.
//
// Packed documents: B of them at most, rows of document b from offsets[b] elements on. Or dense: B
// documents of `longest` rows each, which is what cuDNN is fastest at.
// Dims: H heads of a call, QK and V columns of a head.
#pragma once

#include <memory>

#include "kernels/mla/sizes.h"

namespace sluice {

class CudnnAttention {
 public:
  CudnnAttention();
  ~CudnnAttention();

  enum class Direction : uint8_t { forward, backward, backward_in_order };
  struct Kind {
    Direction direction;
    int64_t B, longest, rows, H, QK, V;
    int64_t q_row, k_row, v_row, o_row, do_row, dq_row, dv_row,
        lse_row;              // elements from row to row
    int64_t v_head, dv_head;  // and from head to head
    bool dense;               // statistics are [B, H, longest]; else [rows, H]
    bool max;                 // forward: max and sum, whose log makes lse, instead of lse

    auto operator<=>(const Kind&) const = default;
  };
  // Memory of the device. offsets: [B + 1] i64 of each tensor, dk's being k's.
  struct Data {
    void *q, *k, *v, *o, *lse, *max, *sum;
    void *d_o, *dq, *dk, *dv;
    void* lengths;  // [B] i32
    void *q_at, *k_at, *v_at, *o_at, *do_at, *dq_at, *dv_at, *lse_at;
  };
  // An Error if cuDNN asks for more workspace than the tensor has, or has no plan.
  void run(const Context& ctx, const Kind& kind, const Data& data, const Tensor& workspace);

  static const char* library();  // "cuDNN 91900": part of the fingerprint of a run

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
