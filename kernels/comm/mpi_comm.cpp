// kernels/comm/mpi_comm.cpp -- MPI moves, we add: the sums are reduce_ranks's, in rank order.
//
// MPI does not notice that ranks call different things: it hangs or mixes their bytes. So every
// collective is preceded by an all_reduce of 16 bytes, a hash of the call: some microseconds, and
// log N of them, on a path that is for the CPU and for small things. Only if hashes differ are the
// calls themselves exchanged, to be named.
#include "kernels/comm/mpi_comm.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <exception>
#include <iostream>

#include "kernels/comm/rank_order.h"

namespace sluice {
namespace {

void check_mpi(int code, const char* what, SourceLine at = SourceLine::here()) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(at.file, at.line, what, std::string(text, size_t(length)));
}

// Elements as bits, of which MPI counts at most 2^31 a call.
MPI_Datatype type_of(DType d) {
  switch (size_of(d)) {
    case 1: return MPI_BYTE;
    case 2: return MPI_UINT16_T;
    case 4: return MPI_UINT32_T;
    default: return MPI_UINT64_T;
  }
}

int to_int(int64_t n) {
  SLUICE_CHECK(n <= INT_MAX, n, " elements in one call, MPI counts up to ", INT_MAX);
  return int(n);
}

char* at(const Tensor& t, int64_t element) {
  return static_cast<char*>(t.data) + element * size_of(t.dtype);
}

// FNV-1a of what the calls of all ranks must have in common; never negative.
int64_t hash_of(const CommCall& call) {
  uint64_t h = 14695981039346656037ull;
  const auto add = [&h](const void* p, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
      h = (h ^ static_cast<const unsigned char*>(p)[i]) * 1099511628211ull;
  };
  const bool sized = call.in && call.op != CommOp::all_to_all_v;
  const int64_t numbers[] = {int64_t(call.op), call.root, bool(call.in), int64_t(call.in.dtype),
                             sized ? call.in.numel() : 0};
  add(numbers, sizeof numbers);
  add(call.use.what.data(), call.use.what.size());
  return int64_t(h >> 1);
}

struct IntParts {
  std::vector<int> counts, begins;
};
IntParts int_parts(const CommParts& parts) {
  IntParts p;
  for (size_t r = 0; r < parts.counts.size(); ++r) {
    p.counts.push_back(to_int(parts.counts[r]));
    p.begins.push_back(to_int(parts.begin(int(r))));
  }
  return p;
}

// [n r / N, n (r + 1) / N): what rank r reduces of n elements.
IntParts even_parts(int64_t n, int N) {
  IntParts p;
  for (int64_t r = 0; r < N; ++r) {
    p.begins.push_back(to_int(n * r / N));
    p.counts.push_back(to_int(n * (r + 1) / N) - p.begins.back());
  }
  return p;
}

class MpiComm final : public Comm {
 public:
  MpiComm(MPI_Comm comm, bool world, std::string name, std::shared_ptr<CommLedger> ledger)
      : Comm(std::move(name), std::move(ledger), size_of_group(comm)),
        comm_(comm),
        world_(world),
        size_(size_of_group(comm)) {
    check_mpi(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  ~MpiComm() override {
    if (std::uncaught_exceptions() > exceptions_) return;
    if (world_)
      MPI_Finalize();
    else
      MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void abort(const std::string& why) override {
    std::cerr << cat("rank ", world_ranks()[size_t(rank_)], " gave up: ", why, "\n");
    MPI_Abort(MPI_COMM_WORLD, 1);
  }

 private:
  static int size_of_group(MPI_Comm comm) {
    int size = 0;
    check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
    return size;
  }

  void execute(const CommCall& call) override {
    compare(call);
    switch (call.op) {
      case CommOp::barrier: return;  // comparing was one
      case CommOp::split: return;
      case CommOp::all_gather: return all_gather(call);
      case CommOp::reduce_scatter: return reduce_scatter(call);
      case CommOp::all_reduce_sum: return all_reduce(call, RankReduce::sum);
      case CommOp::all_reduce_max: return all_reduce(call, RankReduce::max);
      case CommOp::broadcast:
        return check_mpi(MPI_Bcast(call.out.data, to_int(call.out.numel()), type_of(call.out.dtype),
                                   call.root, comm_),
                         "MPI_Bcast");
      case CommOp::all_to_all_v: return all_to_all(call);
    }
  }

  std::unique_ptr<Comm> execute_split(const CommCall& call) override {
    compare(call);
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_, call.color, call.key, &part), "MPI_Comm_split");
    return std::make_unique<MpiComm>(part, false, std::string(call.use.what), shared_ledger());
  }

  void all_gather(const CommCall& call) {
    const bool in_place = call.in.data == at(call.out, rank_ * call.in.numel());
    const int n = to_int(call.in.numel());
    const MPI_Datatype type = type_of(call.in.dtype);
    check_mpi(MPI_Allgather(in_place ? MPI_IN_PLACE : call.in.data, n, type, call.out.data, n, type,
                            comm_),
              "MPI_Allgather");
  }

  void reduce_scatter(const CommCall& call) {
    const int64_t n = call.out.numel();
    char* const parts = scratch(call.in.bytes());
    const MPI_Datatype type = type_of(call.in.dtype);
    check_mpi(MPI_Alltoall(call.in.data, to_int(n), type, parts, to_int(n), type, comm_),
              "MPI_Alltoall");
    reduce(RankReduce::sum, parts, n, call.out.dtype, call.out.data);
  }

  // Every rank reduces one part; small tensors are gathered and reduced by everybody.
  void all_reduce(const CommCall& call, RankReduce how) {
    const Tensor& t = call.in;
    const int64_t n = t.numel();
    const MPI_Datatype type = type_of(t.dtype);
    if (t.bytes() <= 4096) {
      char* const parts = scratch(size_ * t.bytes());
      check_mpi(MPI_Allgather(t.data, int(n), type, parts, int(n), type, comm_), "MPI_Allgather");
      return reduce(how, parts, n, t.dtype, t.data);
    }
    const IntParts even = even_parts(n, size_);
    const int mine = even.counts[size_t(rank_)];
    const std::vector<int> counts(size_t(size_), mine);
    std::vector<int> begins;
    for (int p = 0; p < size_; ++p) begins.push_back(to_int(int64_t(p) * mine));
    char* const parts = scratch(int64_t(size_) * mine * size_of(t.dtype));
    check_mpi(MPI_Alltoallv(t.data, even.counts.data(), even.begins.data(), type, parts,
                            counts.data(), begins.data(), type, comm_),
              "MPI_Alltoallv");
    reduce(how, parts, mine, t.dtype, at(t, even.begins[size_t(rank_)]));
    check_mpi(MPI_Allgatherv(MPI_IN_PLACE, 0, type, t.data, even.counts.data(), even.begins.data(),
                             type, comm_),
              "MPI_Allgatherv");
  }

  void all_to_all(const CommCall& call) {
    compare_counts(call);
    const IntParts send = int_parts(call.send), recv = int_parts(call.recv);
    const MPI_Datatype type = type_of(call.in.dtype);
    check_mpi(MPI_Alltoallv(call.in.data, send.counts.data(), send.begins.data(), type,
                            call.out.data, recv.counts.data(), recv.begins.data(), type, comm_),
              "MPI_Alltoallv");
  }

  // parts [N, n] -> out [n]
  void reduce(RankReduce how, const char* parts, int64_t n, DType dtype, void* out) const {
    std::vector<const void*> x;
    for (int p = 0; p < size_; ++p) x.push_back(parts + p * n * size_of(dtype));
    void* const outs[] = {out};
    reduce_ranks(how, dtype, x, outs, n);
  }

  char* scratch(int64_t bytes) {
    if (int64_t(scratch_.size()) < bytes) scratch_.resize(size_t(bytes));
    return scratch_.data();
  }

  void compare(const CommCall& call) {
    const int64_t hash = hash_of(call);
    int64_t range[2] = {hash, -hash};
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, range, 2, MPI_INT64_T, MPI_MAX, comm_), "MPI_Allreduce");
    if (range[0] != -range[1]) name_difference(to_string(call), hash);
  }

  [[noreturn]] void name_difference(const std::string& mine, int64_t hash) {
    struct Note {
      int64_t hash;
      char call[248];
    };
    Note note = {hash, {}};
    std::memcpy(note.call, mine.data(), std::min(mine.size(), sizeof note.call - 1));
    std::vector<Note> all(static_cast<size_t>(size_));
    check_mpi(MPI_Allgather(&note, sizeof note, MPI_BYTE, all.data(), sizeof note, MPI_BYTE, comm_),
              "MPI_Allgather");
    size_t r = 1;
    while (all[r].hash == all[0].hash) ++r;
    fail(__FILE__, __LINE__, "collective",
         cat("ranks disagree: rank ", world_ranks()[0], " calls ", all[0].call, ", rank ",
             world_ranks()[r], " calls ", all[r].call));
  }

  // The counts that each pair of ranks expects of each other.
  void compare_counts(const CommCall& call) {
    std::vector<int64_t> sent(static_cast<size_t>(size_));
    check_mpi(
        MPI_Alltoall(call.send.counts.data(), 1, MPI_INT64_T, sent.data(), 1, MPI_INT64_T, comm_),
        "MPI_Alltoall");
    std::array<int64_t, 4> worst =
        {};  // a difference, which wins; who sends; what; what is expected
    for (int p = 0; p < size_; ++p)
      if (const int64_t want = call.recv.counts[size_t(p)]; sent[size_t(p)] != want)
        worst = {1, p, sent[size_t(p)], want};
    int64_t who = worst[0] ? rank_ : -1;
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, &who, 1, MPI_INT64_T, MPI_MAX, comm_), "MPI_Allreduce");
    if (who < 0) return;
    check_mpi(MPI_Bcast(worst.data(), 4, MPI_INT64_T, int(who), comm_), "MPI_Bcast");
    fail(__FILE__, __LINE__, "collective",
         cat("ranks disagree: ", to_string(call), ": rank ", world_ranks()[size_t(worst[1])],
             " sends ", worst[2], " elements to rank ", world_ranks()[size_t(who)],
             ", which receives ", worst[3]));
  }

  MPI_Comm comm_;
  const bool world_;
  int rank_ = 0;
  const int size_;
  const int exceptions_ = std::uncaught_exceptions();
  std::vector<char> scratch_;
};

}  // namespace

const char* mpi_version() {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  for (int i = 0; i < length; ++i)
    if (text[i] == ',' || text[i] == '\n') text[i] = 0;  // the first part: "Open MPI v4.1.4"
  return text;
}

std::unique_ptr<Comm> mpi_world() {
  int given = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &given), "MPI_Init_thread");
  SLUICE_CHECK(given == MPI_THREAD_MULTIPLE, "MPI gives thread level ", given, ", needed is ",
               MPI_THREAD_MULTIPLE, " (MPI_THREAD_MULTIPLE)");
  return std::make_unique<MpiComm>(MPI_COMM_WORLD, true, "world", std::make_shared<CommLedger>());
}

void mpi_local_rank(int& rank, int& size) {
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &size), "MPI_Comm_size");
  check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");
}

}  // namespace sluice
