// kernels/comm/sequence_cut.cpp -- who has what of which document.
#include "kernels/comm/sequence_cut.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace sluice {
namespace {

SequenceCut::Part part_of(std::span<const int32_t> cu, int64_t begin, int64_t end) {
  SequenceCut::Part p{begin, end - begin, false, false, 0, 0};
  for (size_t d = 0; d + 1 < cu.size(); ++d) {
    const int64_t first = std::max<int64_t>(cu[d], begin), last = std::min<int64_t>(cu[d + 1], end);
    if (first >= last) continue;  // none of its tokens are here
    if (cu[d] < begin) p.enters = true, p.first_end = last - begin;
    if (cu[d + 1] > end) p.leaves = true, p.last_begin = first - begin;
  }
  return p;
}

}  // namespace

SequenceCut::SequenceCut(std::span<const int32_t> cu, int ranks, int r) : rank(r) {
  SLUICE_CHECK(!cu.empty() && cu.front() == 0 && ranks > 0 && r >= 0 && r < ranks, cu.size(),
               " boundaries, rank ", r, " of ", ranks);
  const int64_t N = cu.back();
  all = N;
  each = (N + ranks - 1) / ranks;
  for (int p = 0; p < ranks; ++p)
    parts.push_back(part_of(cu, std::min(N, p * each), std::min(N, (p + 1) * each)));
  const Part& m = mine();
  documents.push_back(0);
  keys.push_back(0);
  keys_begin = m.begin;
  for (size_t d = 0; d + 1 < cu.size(); ++d) {
    const int64_t last = std::min<int64_t>(cu[d + 1], m.begin + m.tokens);
    if (std::max<int64_t>(cu[d], m.begin) >= last) continue;
    if (documents.size() == 1) keys_begin = cu[d];
    documents.push_back(int32_t(last - m.begin));
    keys.push_back(int32_t(last - keys_begin));
  }
  documents.resize(cu.size(), documents.back());
  keys.resize(cu.size(), keys.back());
}

std::vector<int32_t> SequenceCut::documents_with_halo(int64_t halo) const {
  // What the first document has on the rank before, as far as it is in the halo.
  const int64_t before = mine().enters ? std::min(halo, mine().begin - keys_begin) : 0;
  SLUICE_CHECK(before == 0 || each >= halo, "a rank has ", each, " tokens, fewer than the ", halo,
               " before them that a convolution reads");
  std::vector<int32_t> with{0, int32_t(halo - before)};
  for (size_t d = 1; d < documents.size(); ++d) with.push_back(int32_t(halo + documents[d]));
  return with;
}

}  // namespace sluice
