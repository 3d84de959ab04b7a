// trainer/checkpoint/exchange.h -- what ranks tell each other about files. Every call is a
// collective: all ranks make it, in the same order.
#pragma once

#include <string>
#include <vector>

#include "kernels/comm/comm.h"

namespace sluice {

std::vector<std::string> gather_texts(Comm& comm, const std::string& mine);  // by rank
std::string broadcast_text(Comm& comm, const std::string& text);             // of rank 0
bool all_ranks(Comm& comm, bool mine);
// "rank 2: ..." of the ranks whose text is not empty, joined; the same on all.
std::string errors_of_ranks(Comm& comm, const std::string& mine);

}  // namespace sluice
