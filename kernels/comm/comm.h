// kernels/comm/comm.h -- collectives between the ranks of a run, on host tensors.
//
// Every call blocks until this rank's part is done and its tensors may be reused. All ranks must
// make the same calls in the same order: the op, the dtype, the number of elements and the root are
// compared in every call, and a difference is an Error that names both ranks.
//
// Sums are rank-ordered in the tensor's own type T, ((x_0 + x_1) + x_2) + ..., element by element:
// the same bits in every run and on every rank, whatever the back end. Integers wrap around.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/tensor/tensor.h"

namespace sluice {

enum class CommOp : uint8_t { barrier, all_gather, reduce_scatter, all_reduce_sum, broadcast };

const char* name(CommOp);

// One rank's part of a collective. `in` is what it gives, `out` what it gets (maybe the same).
struct CommCall {
  CommOp op = CommOp::barrier;
  Tensor in = {};   // none in a barrier
  Tensor out = {};  // none in a barrier
  int root = 0;     // of a broadcast
};

std::string to_string(const CommCall&);  // "all_gather of f32 [3, 5] on cpu"

// One rank's end of a group of ranks; used by one thread at a time. Tensors are dense and on the
// host. Shapes are free, numbers of elements count: n = local.numel(), N = size().
class Comm {
 public:
  Comm() = default;
  virtual ~Comm() = default;
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  void barrier();
  // all[r * n + i] = local of rank r [i]; any dtype. `local` may be this rank's part of `all`.
  void all_gather(const Tensor& local, const Tensor& all);
  // local[i] = sum over ranks p of (all of rank p)[rank() * n + i]; f32, f64, i32, i64. `local` may
  // be this rank's part of `all`, the rest of which is left as it was.
  void reduce_scatter(const Tensor& all, const Tensor& local);
  // t[i] = sum over ranks p of (t of rank p)[i]; f32, f64, i32, i64.
  void all_reduce_sum(const Tensor& t);
  // t[i] = (t of rank root)[i]; any dtype.
  void broadcast(const Tensor& t, int root);

 private:
  // `call` keeps the contract above; what other ranks call is not known yet.
  virtual void execute(const CommCall& call) = 0;
};

// A group of one rank: copies.
class NullComm final : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

 private:
  void execute(const CommCall& call) override;
};

}  // namespace sluice
