// kernels/comm/comm.h -- collectives between the ranks of a run.
//
// All ranks must make the same calls in the same order: the op, its name, the dtype, the number of
// elements and the root are compared, and a difference is an Error that names both ranks.
//
// Sums are rank-ordered in the tensor's own type T, ((x_0 + x_1) + x_2) + ..., element by element:
// the same bits in every run and on every rank, whatever the back end. Integers wrap around.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/comm/comm_ledger.h"
#include "kernels/tensor/tensor.h"

struct CUstream_st;

namespace sluice {

class CommStaging;

// What a call is for, and where its device tensors are used.
struct CommUse {
  std::string_view what = {};     // "layers.3 weights": the same on all ranks
  CUstream_st* stream = nullptr;  // of device tensors: the call comes after what is queued there
};

// Which elements of a tensor go to, or come from, rank p: counts[p] of them from begins[p] on.
struct CommParts {
  std::span<const int64_t> counts;  // [N]
  std::span<const int64_t> begins;  // [N], or none: one after the other
  int64_t begin(int rank) const;
};

// One rank's part of a collective. `in` is what it gives, `out` what it gets (maybe the same).
struct CommCall {
  CommOp op = CommOp::barrier;
  Tensor in = {};       // none in a barrier and a split
  Tensor out = {};      // likewise
  int root = 0;         // of a broadcast
  CommParts send = {};  // of an all_to_all_v: parts of `in`
  CommParts recv = {};  // and of `out`
  int color = 0;        // of a split
  int key = 0;
  CommUse use = {};
};

std::string to_string(const CommCall&);  // "all_gather 'layers.3 weights' of f32 [3, 5] on cpu"

// Bytes that `rank` of N gives to others: the least that any algorithm moves, each part once to
// whoever needs it. An all_reduce is a reduce_scatter and an all_gather of the n / N that a rank
// sums.
int64_t bytes_sent(const CommCall& call, int rank, int64_t N);

// One rank's end of a group of ranks; used by one thread at a time. Tensors are dense; shapes are
// free, numbers of elements count: n = local.numel(), N = size(). A call on host tensors returns
// when this rank's part is done and its tensors may be reused; one on device tensors is done when
// the stream has passed it. A back end that cannot reach the tensors where they are gets copies
// (CommStaging), and then the host waits.
class Comm {
 public:
  virtual ~Comm();
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // True if calls on device tensors are queued on the stream and the host waits for nothing.
  virtual bool queues_on_stream() const { return false; }
  // Releases the ranks that wait in this group, now or later, with an Error. For a rank that cannot
  // go on: it may be called while another thread is in a call.
  virtual void abort(const std::string& why) = 0;

  void barrier(const CommUse& use = {});
  // all[r * n + i] = local of rank r [i]; any dtype. `local` may be this rank's part of `all`.
  void all_gather(const Tensor& local, const Tensor& all, const CommUse& use = {});
  // local[i] = sum over ranks p of (all of rank p)[rank() * n + i]; f32, f64, i32, i64. `local` may
  // be this rank's part of `all`, the rest of which is left as it was.
  void reduce_scatter(const Tensor& all, const Tensor& local, const CommUse& use = {});
  // t[i] = sum over ranks p of (t of rank p)[i]; f32, f64, i32, i64.
  void all_reduce_sum(const Tensor& t, const CommUse& use = {});
  // t[i] = the largest (t of rank p)[i]; f32, f64, i32, i64. NaN if one of them is.
  void all_reduce_max(const Tensor& t, const CommUse& use = {});
  // t[i] = (t of rank root)[i]; any dtype.
  void broadcast(const Tensor& t, int root, const CommUse& use = {});
  // Part p of `send` goes to rank p, part p of `recv` comes from there; any dtype. Rank p's count
  // for this rank and this rank's for p must agree. The two tensors do not overlap.
  void all_to_all_v(const Tensor& send, const CommParts& send_parts, const Tensor& recv,
                    const CommParts& recv_parts, const CommUse& use = {});
  // The group of the ranks that give the same color, in the order of (key, rank); named use.what.
  std::unique_ptr<Comm> split(int color, int key, const CommUse& use = {});

  const std::string& name() const { return name_; }
  const std::vector<int>& world_ranks() const { return world_ranks_; }  // [N]
  // Of this rank, with all groups split off: calls and bytes by group, op and name.
  CommLedger& ledger() const { return *ledger_; }

 protected:
  Comm(std::string name, std::shared_ptr<CommLedger> ledger, int size);
  const std::shared_ptr<CommLedger>& shared_ledger() const { return ledger_; }

 private:
  void run(const CommCall& call);
  void place_and_execute(const CommCall& call);
  // Where execute() takes tensors.
  virtual Device place() const { return Device::cpu; }
  // `call` keeps the contract above; what other ranks call is not known yet.
  virtual void execute(const CommCall& call) = 0;
  virtual std::unique_ptr<Comm> execute_split(const CommCall& call) = 0;

  const std::string name_;
  const std::shared_ptr<CommLedger> ledger_;
  std::vector<int> world_ranks_;
  std::unique_ptr<CommStaging> staging_;
};

// A group of one rank: copies.
class NullComm final : public Comm {
 public:
  NullComm() : NullComm("world", std::make_shared<CommLedger>()) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  void abort(const std::string&) override {}

 private:
  NullComm(std::string name, std::shared_ptr<CommLedger> ledger)
      : Comm(std::move(name), std::move(ledger), 1) {}
  void execute(const CommCall& call) override;
  std::unique_ptr<Comm> execute_split(const CommCall& call) override;
};

}  // namespace sluice
