// data/loader/packing.cpp -- rows by the room that they have left.
#include "data/loader/packing.h"

#include <algorithm>
#include <map>

namespace sluice {

std::vector<PackedRow> pack_best_fit(std::span<const int64_t> offsets, int64_t row_tokens) {
  std::vector<PackedRow> rows;
  std::vector<Piece> rest;  // pieces shorter than a row
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    int64_t begin = offsets[d];
    for (; offsets[d + 1] - begin >= row_tokens; begin += row_tokens)
      rows.push_back({{begin, begin + row_tokens}});
    if (begin < offsets[d + 1]) rest.push_back({begin, offsets[d + 1]});
  }
  std::sort(rest.begin(), rest.end(), [](const Piece& a, const Piece& b) {
    const int64_t m = a.end - a.begin, n = b.end - b.begin;
    return m != n ? m > n : a.begin < b.begin;
  });
  std::map<int64_t, std::vector<size_t>> by_room;  // rows that have room left
  for (const Piece& p : rest) {
    const int64_t length = p.end - p.begin;
    const auto fullest = by_room.lower_bound(length);
    size_t row = rows.size();
    int64_t room = row_tokens;
    if (fullest == by_room.end()) {
      rows.emplace_back();
    } else {
      room = fullest->first;
      row = fullest->second.back();
      fullest->second.pop_back();
      if (fullest->second.empty()) by_room.erase(fullest);
    }
    rows[row].push_back(p);
    if (room > length) by_room[room - length].push_back(row);
  }
  return rows;
}

}  // namespace sluice
