// trainer/checkpoint/exchange.h -- what ranks tell each other about files. Every call is a
// collective: all ranks make it, in the same order.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/comm/comm.h"

namespace sluice {

std::vector<std::string> gather_texts(Comm& comm, const std::string& mine);  // by rank
std::string broadcast_text(Comm& comm, const std::string& text);             // of rank 0
bool all_ranks(Comm& comm, bool mine);
// "rank 2: ..." of the ranks whose text is not empty, joined; the same on all.
std::string errors_of_ranks(Comm& comm, const std::string& mine);

// Runs f on a thread of its own and comes back when it has ended on all ranks; they ask each other
// again and again, so that one who has more to read is no collective that hangs. f throws nothing.
void on_threads(Comm& comm, const std::function<void()>& f);

// f on every rank, which talks to nobody: an Error of one is an Error of all.
template <class F>
void on_all_ranks(Comm& comm, const F& f) {
  if (comm.size() == 1) return f();
  std::string error;
  try {
    f();
  } catch (const Error& e) {
    error = e.what();
  }
  error = errors_of_ranks(comm, error);
  if (!error.empty()) throw Error(error);
}

}  // namespace sluice
