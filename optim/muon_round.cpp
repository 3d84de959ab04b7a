// optim/muon_round.cpp -- a round of Muon over ranks: U to the owners, X back.
//
// What travels is of type W (kernels/muon), what the products take: bf16 on CUDA, two bytes an
// element each way, and nothing is rounded that would not be on one rank.
#include "kernels/muon/muon.h"
#include "kernels/tensor/fill.h"
#include "optim/optimizer.h"

namespace sluice {

void Optimizer::muon_round(const Context& ctx, const Distributed& d, const MuonRound& round,
                           const StepState* state) const {
  if (ctx.device == Device::cpu && ctx.mode != Mode::plan && state->skip) return;  // on all ranks
  const DType W = muon_wire_type(owned_.front().shard.master);
  const ArenaTensor given = scratch(ctx, W, {round.given}), got = scratch(ctx, W, {round.got}),
                    whole = scratch(ctx, W, {round.got});
  const auto pieces = [&](const auto& body) {
    int64_t at = 0;
    for (const MuonRound::Piece& p : round.pieces) {
      const Owned& o = owned_[size_t(owned_of_[size_t(p.param)])];
      body(
          p, o,
          [&, begin = p.begin - o.shard.begin](const Tensor& t) {
            return t ? t.rows(begin, p.count) : t;
          },
          given.view().rows(at, p.count));
      at += p.count;
    }
  };
  const bool runs = ctx.mode != Mode::plan;
  pieces([&](const MuonRound::Piece& p, const Owned& o, const auto& part, const Tensor& u) {
    muon_momentum(ctx, {part(o.shard.grad),
                        part(o.m.t),
                        u,
                        state,
                        config_.muon.momentum,
                        {o.rounding.key, p.begin}});
  });
  if (runs)
    d.comm->all_to_all_v(given, {round.gives, {}}, got, {round.gets, {}},
                         {.what = "muon momentum", .stream = ctx.stream});
  for (const MuonRound::Move& m : round.moves)
    copy_in_order(ctx, got.view().rows(m.from, m.count), whole.view().rows(m.to, m.count));
  for (const MatrixRun& r : round.runs)
    orthogonalize(ctx,
                  {.x = whole.view().rows(r.begin, r.numel()).reshape({r.count, r.rows, r.columns}),
                   .state = state,
                   .ns_steps = config_.muon.ns_steps});
  for (const MuonRound::Move& m : round.moves)
    copy_in_order(ctx, whole.view().rows(m.to, m.count), got.view().rows(m.from, m.count));
  if (runs)
    d.comm->all_to_all_v(got, {round.gets, {}}, given, {round.gives, {}},
                         {.what = "muon update", .stream = ctx.stream});
  pieces([&](const MuonRound::Piece& p, const Owned& o, const auto& part, const Tensor& x) {
    muon_apply(ctx, {.param = part(o.shard.master),
                     .x = x,
                     .copy = part(o.shard.copy),
                     .state = state,
                     .longer = p.longer,
                     .lr_scale = o.settings.lr_scale,
                     .weight_decay = o.settings.weight_decay});
  });
}

}  // namespace sluice
