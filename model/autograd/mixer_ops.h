// model/autograd/mixer_ops.h -- operators that look along the sequence, and the linear mixers'
// output norm.
//
// Dims: N tokens, H query heads, HV value heads, K key dim, V value dim, W taps, S documents.
// cu_seqlens [S + 1] i32 cuts the N tokens into documents; nothing leaks across a boundary.
#pragma once

#include "kernels/gated_rmsnorm/gated_rmsnorm.h"
#include "kernels/gdn/gdn_op.h"
#include "kernels/kda/kda_op.h"
#include "model/autograd/tape.h"

namespace sluice {

class SequenceExchange;  // kernels/comm/sequence_exchange.h

// States that a call continues from and leaves behind: generation only (no gradient goes through).
struct RecurrentState {
  Tensor initial;       // optional
  Tensor final;         // optional; may be the same memory
  bool single = false;  // no document has more than one token
};

// silu(causal depthwise convolution): x [N, C], w [C, W] -> [N, C]. States [S, C, W-1].
Var short_conv(Tape& tape, const Var& x_NC, ParamId w_CW, const Tensor& cu_seqlens,
               const RecurrentState& state = {});

template <class Op>  // KdaOp, GdnOp
struct RecurrenceInputs {
  Var q, k;         // [N, H*K], before the L2 norm
  Var v;            // [N, HV*V]
  Var g;            // gate logits: KDA [N, HV*K], GDN [N, HV]
  Var beta;         // [N, HV], logits; of a rule without: none, id < 0
  ParamId A_log;    // [HV]
  ParamId dt_bias;  // KDA [HV, K], GDN [HV]
  int64_t H, HV;
  typename Op::Params params;
};
using KdaInputs = RecurrenceInputs<KdaOp>;
using GdnInputs = RecurrenceInputs<GdnOp>;

// [N, HV*V]; states [S, HV, K, V]. With an exchange cu_seqlens has this rank's tokens alone, and
// what other ranks have of its documents counts.
Var kda(Tape& tape, const KdaInputs& in, const Tensor& cu_seqlens, const RecurrentState& state = {},
        const SequenceExchange* exchange = nullptr);
Var gdn(Tape& tape, const GdnInputs& in, const Tensor& cu_seqlens, const RecurrentState& state = {},
        const SequenceExchange* exchange = nullptr);

// Per head RMS norm of x [N, H*C] with w [C], then times act(gate [N, H*C]). Without a gate
// (gate.id < 0) the norm alone.
Var gated_rmsnorm(Tape& tape, const Var& x, const Var& gate, ParamId w_C, double eps,
                  GateActivation activation);

struct MlaInputs {
  Var q;       // [N, H*(nope+rope)]
  Var kv;      // [Nk, H*(nope+V)]
  Var k_rope;  // [Nk, rope]
  int64_t H, nope, rope, V;
  double rope_theta;    // 0: NoPE
  int64_t longest = 0;  // no document has more keys; 0: not known
  ParamId w_kv_b{};  // the parameter that StepStats keeps the largest logits by; none: they are not
};
// Causal softmax attention; the queries are the last tokens of each document. [N, H*V]
Var mla_attention(Tape& tape, const MlaInputs& in, const Tensor& cu_seqlens_q,
                  const Tensor& cu_seqlens_k);

}  // namespace sluice
