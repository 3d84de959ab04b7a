// kernels/comm/nccl_comm.cpp -- NCCL moves, we add: a sum is an exchange of parts and a kernel that
// adds them in the order of the ranks, so the bits are those of the other back ends. Everything is
// queued; nothing waits.
//
// Ranks that call different things are not compared here, since that would take the host: the
// watchdog names them.
#include "kernels/comm/nccl_comm.h"

#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>

#include "kernels/base/cuda_check.h"
#include "kernels/comm/rank_order_cuda.h"
#include "kernels/tensor/buffer.h"

namespace sluice {
namespace {

void check_nccl(ncclResult_t code, const char* what, ncclComm_t comm = nullptr,
                SourceLine at = SourceLine::here()) {
  if (code == ncclSuccess) return;
  fail(at.file, at.line, what, cat(ncclGetErrorString(code), ": ", ncclGetLastError(comm)));
}

ncclDataType_t type_of(DType d) {
  switch (d) {
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    case DType::i64: return ncclInt64;
    case DType::u8: return ncclUint8;
  }
  return ncclUint8;
}

// One exchange: everything sent and received between its ends goes at the same time.
class Exchange {
 public:
  Exchange(ncclComm_t comm, DType dtype, CUstream_st* stream)
      : comm_(comm), dtype_(dtype), stream_(stream) {
    check_nccl(ncclGroupStart(), "ncclGroupStart");
  }
  void send(const Tensor& t, int64_t begin, int64_t count, int to) const {
    if (count > 0)
      check_nccl(ncclSend(at(t, begin), size_t(count), type_of(dtype_), to, comm_, stream_),
                 "ncclSend", comm_);
  }
  void receive(const Tensor& t, int64_t begin, int64_t count, int from) const {
    if (count > 0)
      check_nccl(ncclRecv(at(t, begin), size_t(count), type_of(dtype_), from, comm_, stream_),
                 "ncclRecv", comm_);
  }
  void end() const { check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm_); }

 private:
  char* at(const Tensor& t, int64_t element) const {
    return static_cast<char*>(t.data) + element * size_of(dtype_);
  }

  ncclComm_t comm_;
  DType dtype_;
  CUstream_st* stream_;
};

class NcclComm final : public Comm {
 public:
  NcclComm(ncclComm_t comm, int rank, int size, Determinism determinism, std::string name,
           std::shared_ptr<CommLedger> ledger)
      : Comm(std::move(name), std::move(ledger), size),
        comm_(comm),
        rank_(rank),
        size_(size),
        determinism_(determinism) {}
  ~NcclComm() override {
    if (aborted_) return;
    if (std::uncaught_exceptions() > exceptions_)
      (void)ncclCommAbort(comm_);  // others may never come to what is queued
    else
      (void)ncclCommDestroy(comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool queues_on_stream() const override { return true; }
  void abort(const std::string&) override {
    if (!aborted_.exchange(true)) (void)ncclCommAbort(comm_);
  }

 private:
  Device place() const override { return Device::cuda; }

  void execute(const CommCall& call) override {
    SLUICE_CHECK(!aborted_, to_string(call), ": the group was aborted");
    CUstream_st* const stream = call.use.stream;
    const auto n = size_t(call.in ? call.in.numel() : 0);
    const ncclDataType_t type = type_of(call.in.dtype);
    switch (call.op) {
      case CommOp::barrier: return barrier();
      case CommOp::split: return;
      case CommOp::all_gather:
        return check_nccl(ncclAllGather(call.in.data, call.out.data, n, type, comm_, stream),
                          "ncclAllGather", comm_);
      case CommOp::broadcast:
        return check_nccl(
            ncclBroadcast(call.in.data, call.out.data, n, type, call.root, comm_, stream),
            "ncclBroadcast", comm_);
      case CommOp::all_to_all_v: return all_to_all(call);
      case CommOp::reduce_scatter:
        if (determinism_ == Determinism::fast)
          return check_nccl(ncclReduceScatter(call.in.data, call.out.data, size_t(call.out.numel()),
                                              type, ncclSum, comm_, stream),
                            "ncclReduceScatter", comm_);
        return reduce_scatter(RankReduce::sum, call.in, call.out, stream);
      case CommOp::all_reduce_sum:
        if (determinism_ == Determinism::fast)
          return check_nccl(
              ncclAllReduce(call.in.data, call.out.data, n, type, ncclSum, comm_, stream),
              "ncclAllReduce", comm_);
        return all_reduce(RankReduce::sum, call.in, stream);
      case CommOp::all_reduce_max: return all_reduce(RankReduce::max, call.in, stream);
    }
  }

  std::unique_ptr<Comm> execute_split(const CommCall& call) override {
    ncclComm_t part = nullptr;
    check_nccl(ncclCommSplit(comm_, call.color, call.key, &part, nullptr), "ncclCommSplit", comm_);
    int rank = 0, size = 0;
    check_nccl(ncclCommUserRank(part, &rank), "ncclCommUserRank", part);
    check_nccl(ncclCommCount(part, &size), "ncclCommCount", part);
    return std::make_unique<NcclComm>(part, rank, size, determinism_, std::string(call.use.what),
                                      shared_ledger());
  }

  // The host waits here: that is what a barrier is for.
  void barrier() {
    const Tensor one = scratch(DType::i32, 1);
    check_nccl(ncclAllReduce(one.data, one.data, 1, ncclInt32, ncclMax, comm_, nullptr),
               "ncclAllReduce", comm_);
    SLUICE_CUDA(cudaStreamSynchronize(nullptr));
  }

  void all_to_all(const CommCall& call) const {
    const Exchange exchange(comm_, call.in.dtype, call.use.stream);
    for (int p = 0; p < size_; ++p) {
      exchange.send(call.in, call.send.begin(p), call.send.counts[size_t(p)], p);
      exchange.receive(call.out, call.recv.begin(p), call.recv.counts[size_t(p)], p);
    }
    exchange.end();
  }

  // all [N * n] -> local [n], in pieces of which the scratch holds N.
  void reduce_scatter(RankReduce how, const Tensor& all, const Tensor& local, CUstream_st* stream) {
    const int64_t n = local.numel(), piece = piece_of(local.dtype);
    for (int64_t begin = 0; begin < n; begin += piece) {
      const int64_t count = std::min(piece, n - begin);
      const Tensor parts = scratch(local.dtype, size_ * count);
      const Exchange exchange(comm_, local.dtype, stream);
      for (int p = 0; p < size_; ++p) {
        exchange.send(all, p * n + begin, count, p);
        exchange.receive(parts, p * count, count, p);
      }
      exchange.end();
      cuda::reduce_ranks(how, local.dtype, parts.data, size_, count,
                         static_cast<char*>(local.data) + begin * size_of(local.dtype), stream);
    }
  }

  // As many elements as the ranks divide are a reduce_scatter and an all_gather; all ranks reduce
  // the rest.
  void all_reduce(RankReduce how, const Tensor& t, CUstream_st* stream) {
    const Tensor flat = make_tensor(t.data, t.dtype, Device::cuda, {t.numel()});
    const int64_t n = flat.numel() / size_, rest = flat.numel() - n * size_;
    if (n > 0) {
      const Tensor even = flat.rows(0, n * size_), mine = even.rows(rank_ * n, n);
      reduce_scatter(how, even, mine, stream);
      check_nccl(ncclAllGather(mine.data, even.data, size_t(n), type_of(t.dtype), comm_, stream),
                 "ncclAllGather", comm_);
    }
    if (rest == 0) return;
    const Tensor tail = flat.rows(n * size_, rest), parts = scratch(t.dtype, size_ * rest);
    check_nccl(ncclAllGather(tail.data, parts.data, size_t(rest), type_of(t.dtype), comm_, stream),
               "ncclAllGather", comm_);
    cuda::reduce_ranks(how, t.dtype, parts.data, size_, rest, tail.data, stream);
  }

  int64_t piece_of(DType dtype) const {
    return std::max<int64_t>(kNcclScratchBytes / size_of(dtype) / size_, 1);
  }
  // One for all calls: a group's calls are on one stream, or ordered by events.
  Tensor scratch(DType dtype, int64_t count) {
    if (!scratch_.view()) scratch_ = Buffer(DType::u8, {kNcclScratchBytes}, Device::cuda);
    return make_tensor(scratch_.view().data, dtype, Device::cuda, {count});
  }

  ncclComm_t comm_;
  const int rank_, size_;
  const Determinism determinism_;
  const int exceptions_ = std::uncaught_exceptions();
  std::atomic<bool> aborted_{false};
  Buffer scratch_;
};

}  // namespace

const char* nccl_version() {
  static const std::string text = [] {
    int v = 0;
    check_nccl(ncclGetVersion(&v), "ncclGetVersion");
    return cat(v / 10000, ".", v / 100 % 100, ".", v % 100);
  }();
  return text.c_str();
}

std::unique_ptr<Comm> nccl_world(const NcclWorld& world) {
  // NVLink multicast needs a fabric manager, which not every machine and container has.
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  ncclUniqueId id = {};
  if (world.rank == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
  if (world.size > 1)
    world.broadcast(make_tensor(&id, DType::u8, Device::cpu, {int64_t(sizeof id)}));
  ncclComm_t comm = nullptr;
  check_nccl(ncclCommInitRank(&comm, world.size, id, world.rank), "ncclCommInitRank");
  return std::make_unique<NcclComm>(comm, world.rank, world.size, world.determinism, "world",
                                    std::make_shared<CommLedger>());
}

}  // namespace sluice
