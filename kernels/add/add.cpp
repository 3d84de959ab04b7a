// kernels/add/add.cpp -- the contract, checked once for every back end.
#include "kernels/add/add.h"

namespace sluice {

namespace cuda {
void add_forward(const Context& ctx, const AddForward& a);
void add_backward(const Context& ctx, const AddBackward& a);
}  // namespace cuda
namespace cpu {
void add_forward(const Context& ctx, const AddForward& a);
void add_backward(const Context& ctx, const AddBackward& a);
}  // namespace cpu
namespace reference {
void add_forward(const Context& ctx, const AddForward& a);
void add_backward(const Context& ctx, const AddBackward& a);
}  // namespace reference

static void check_like(const Tensor& t, const char* label, const Tensor& like) {
  SLUICE_CHECK(t.rank == like.rank && t.shape == like.shape && t.dtype == like.dtype &&
                   t.device == like.device && t.dense(),
               label, " is ", to_string(t), ", expected dense ", to_string(like));
}

void add_forward(const Context& ctx, const AddForward& a) {
  SLUICE_CHECK(a.a && a.a.device == ctx.device, "a is ", to_string(a.a));
  check_like(a.a, "a", a.a);
  check_like(a.b, "b", a.a);
  check_like(a.y, "y", a.a);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(add_forward, ctx, a);
}

void add_backward(const Context& ctx, const AddBackward& a) {
  SLUICE_CHECK(a.dy && a.dy.device == ctx.device, "dy is ", to_string(a.dy));
  check_like(a.dy, "dy", a.dy);
  check_like(a.da.t, "da", a.dy);
  check_like(a.db.t, "db", a.dy);
  if (ctx.mode == Mode::plan) return;
  SLUICE_DISPATCH(add_backward, ctx, a);
}

}  // namespace sluice
