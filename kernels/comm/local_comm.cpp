// kernels/comm/local_comm.cpp -- collectives through shared memory: meet, work, meet.
//
// In the first meeting all ranks post their tensors and compare their calls; then every rank reads
// its peers' memory and writes what it alone owns; the second meeting lets the tensors go. Nothing
// between the two can throw, so no rank unwinds while a peer still reads its tensors.
#include "kernels/comm/local_comm.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace sluice {
namespace {

const char* data_at(const Tensor& t, int64_t element) {
  return static_cast<const char*>(t.data) + element * size_of(t.dtype);
}

void copy_bytes(const void* from, void* to, int64_t bytes) {
  if (from != to && bytes > 0) std::memcpy(to, from, size_t(bytes));
}

// sum[i] = x_0[begin + i] + x_1[begin + i] + ..., handed to emit(sum, i0, count) by blocks. T is
// unsigned for integers: their sums wrap.
template <class T, class Emit>
void sum_ranks(const std::vector<CommCall>& calls, int64_t begin, int64_t count, const Emit& emit) {
  constexpr int64_t kBlock = 1024;  // stays in L1
  std::array<T, kBlock> sum;
  for (int64_t i0 = 0; i0 < count; i0 += kBlock) {
    const int64_t n = std::min(kBlock, count - i0);
    for (size_t p = 0; p < calls.size(); ++p) {
      const T* x = static_cast<const T*>(calls[p].in.data) + begin + i0;
      if (p == 0)
        std::copy_n(x, n, sum.data());
      else
        for (int64_t i = 0; i < n; ++i) sum[size_t(i)] += x[i];
    }
    emit(sum.data(), i0, n);
  }
}

template <class T>
void reduce_scatter(const std::vector<CommCall>& calls, int rank) {
  const Tensor& out = calls[size_t(rank)].out;
  const int64_t n = out.numel();
  T* to = static_cast<T*>(out.data);
  sum_ranks<T>(calls, rank * n, n,
               [&](const T* sum, int64_t i0, int64_t count) { std::copy_n(sum, count, to + i0); });
}

// Rank r sums the r-th part and writes it into every rank's tensor: no scratch, and no element that
// two ranks touch.
template <class T>
void all_reduce(const std::vector<CommCall>& calls, int rank) {
  const int64_t n = calls[0].in.numel(), N = int64_t(calls.size());
  const int64_t begin = n * rank / N, end = n * (rank + 1) / N;
  sum_ranks<T>(calls, begin, end - begin, [&](const T* sum, int64_t i0, int64_t count) {
    for (const CommCall& call : calls)
      std::copy_n(sum, count, static_cast<T*>(call.out.data) + begin + i0);
  });
}

template <class T>
void reduce(const std::vector<CommCall>& calls, int rank) {
  if (calls[0].op == CommOp::reduce_scatter)
    reduce_scatter<T>(calls, rank);
  else
    all_reduce<T>(calls, rank);
}

// What `rank` has to do; calls[p] is the call of rank p.
void work(const std::vector<CommCall>& calls, int rank) {
  const CommCall& mine = calls[size_t(rank)];
  switch (mine.op) {
    case CommOp::barrier: return;
    case CommOp::broadcast:
      return copy_bytes(calls[size_t(mine.root)].in.data, mine.out.data, mine.out.bytes());
    case CommOp::all_gather: {
      const int64_t n = mine.in.numel();
      for (size_t p = 0; p < calls.size(); ++p)
        copy_bytes(calls[p].in.data, const_cast<char*>(data_at(mine.out, int64_t(p) * n)),
                   mine.in.bytes());
      return;
    }
    case CommOp::reduce_scatter:
    case CommOp::all_reduce_sum:
      switch (mine.in.dtype) {
        case DType::f32: return reduce<float>(calls, rank);
        case DType::f64: return reduce<double>(calls, rank);
        case DType::i32: return reduce<uint32_t>(calls, rank);
        case DType::i64: return reduce<uint64_t>(calls, rank);
        default: return;  // Comm has refused it
      }
  }
}

bool same(const CommCall& a, const CommCall& b) {
  return a.op == b.op && a.root == b.root && a.in.dtype == b.in.dtype &&
         a.in.numel() == b.in.numel();
}

std::string what_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace

struct LocalGroup::Shared {
  explicit Shared(int n) : calls(size_t(n)), waits(size_t(n)) {}

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<CommCall> calls;  // of the meeting that is under way
  std::vector<char> waits;      // 1: the rank has arrived at it
  int arrived = 0;
  int64_t meetings = 0;      // complete ones
  int gone = -1;             // a rank whose body has returned
  std::string failure;       // why no further meeting can be complete
  std::exception_ptr first;  // of all the exceptions that left a body

  int size() const { return int(calls.size()); }

  void reset() {
    std::fill(waits.begin(), waits.end(), char(0));
    arrived = 0;
    gone = -1;
    failure.clear();
    first = nullptr;
  }

  // With the mutex held.
  void set_failure(const std::string& why) {
    if (failure.empty()) failure = why;
    changed.notify_all();
  }
  void compare_calls() {
    for (int r = 1; r < size(); ++r)
      if (!same(calls[0], calls[size_t(r)]))
        return set_failure(cat("ranks disagree: rank 0 calls ", to_string(calls[0]), ", rank ", r,
                               " calls ", to_string(calls[size_t(r)])));
  }
  void check_gone() {
    if (gone < 0 || arrived == 0) return;
    const auto r = std::find(waits.begin(), waits.end(), char(1)) - waits.begin();
    set_failure(
        cat("rank ", gone, " returned while rank ", r, " waits in ", to_string(calls[size_t(r)])));
  }

  // Before the first meeting of a collective; not before the second, where peers still read
  // `calls`.
  void post(int rank, const CommCall& call) {
    const std::lock_guard lock(mutex);
    calls[size_t(rank)] = call;
  }

  // Returns when all ranks have arrived, with equal calls; throws if that will never be.
  void meet(int rank) {
    std::unique_lock lock(mutex);
    const int64_t meeting = meetings;
    if (failure.empty()) {
      waits[size_t(rank)] = 1;
      ++arrived;
      check_gone();
    }
    if (failure.empty() && arrived == size()) {
      compare_calls();
      if (failure.empty()) {
        arrived = 0;
        std::fill(waits.begin(), waits.end(), char(0));
        ++meetings;
        changed.notify_all();
      }
    }
    changed.wait(lock, [&] { return meetings != meeting || !failure.empty(); });
    // A meeting that was complete stays so, even if a peer has failed since.
    if (meetings == meeting)
      fail(__FILE__, __LINE__, "collective",
           cat("rank ", rank, ", ", to_string(calls[size_t(rank)]), ": ", failure));
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex);
    gone = rank;
    check_gone();
  }
  void record(int rank, const std::exception_ptr& e) {
    const std::lock_guard lock(mutex);
    if (!first) first = e;
    set_failure(cat("released, because rank ", rank, " failed: ", what_of(e)));
  }
};

namespace {

// A template, because LocalGroup::Shared is private.
template <class Shared>
class LocalComm final : public Comm {
 public:
  LocalComm(Shared& shared, int rank) : shared_(shared), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return shared_.size(); }

 private:
  void execute(const CommCall& call) override {
    shared_.post(rank_, call);
    shared_.meet(rank_);
    work(shared_.calls, rank_);
    shared_.meet(rank_);
  }

  Shared& shared_;
  const int rank_;
};

}  // namespace

LocalGroup::LocalGroup(int size) {
  SLUICE_CHECK(size >= 1, "a group of ", size, " ranks");
  shared_ = std::make_unique<Shared>(size);
}

LocalGroup::~LocalGroup() = default;

int LocalGroup::size() const {
  return shared_->size();
}

void LocalGroup::run(const std::function<void(Comm&)>& body) {
  Shared& shared = *shared_;
  shared.reset();
  {
    std::vector<std::jthread> threads;
    const auto start = [&](int rank) {
      threads.emplace_back([&shared, &body, rank] {
        try {
          LocalComm<Shared> comm(shared, rank);
          body(comm);
          shared.leave(rank);
        } catch (...) {
          shared.record(rank, std::current_exception());
        }
      });
    };
    try {
      for (int rank = 0; rank < size(); ++rank) start(rank);
    } catch (...) {  // no more threads: those that run must not wait for the others
      shared.record(int(threads.size()), std::current_exception());
    }
  }
  if (shared.first) std::rethrow_exception(shared.first);
}

}  // namespace sluice
