// optim/muon_plan.cpp -- pure functions of who has what, equal on all ranks.
#include "optim/muon_plan.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace sluice {

namespace {

// Elements of a matrix that a rank has, as a range of the parameter.
ElementRange part_of(const Matrix& m, const ShardGroup& group, int rank) {
  const ElementRange has = group.ranges[size_t(rank)][size_t(m.param)];
  const int64_t begin = std::max(m.begin, has.begin), end = std::min(m.begin + m.numel(), has.end);
  return {begin, std::max(begin, end)};
}

// The rank that has it all; -1: several; -2: none of the group has any of it.
int home_of(const Matrix& m, const ShardGroup& group, const ParamStore& params) {
  int64_t found = 0;
  int home = -2;
  for (int r = 0; r < group.size(); ++r) {
    const ElementRange part = part_of(m, group, r);
    if (part.begin == part.end) continue;
    found += part.end - part.begin;
    home = home == -2 ? r : -1;
  }
  SLUICE_CHECK(found == 0 || found == m.numel(), params.spec({m.param}).name, ": of the matrix at ",
               m.begin, " of ", m.rows, " x ", m.columns, " the ranks have ", found,
               " elements of ", m.numel());
  return home;
}

// Sets the owners and returns the costs by rank.
std::vector<int64_t> assign(std::vector<OwnedMatrix>& matrices, const std::vector<int>& homes,
                            int ranks) {
  std::vector<int64_t> costs(size_t(ranks), 0);
  std::vector<size_t> order(matrices.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return matrices[a].is.cost() > matrices[b].is.cost();
  });
  int64_t total = 0;
  for (const OwnedMatrix& m : matrices) total += m.is.cost();
  std::vector<size_t> rest;
  for (const size_t i : order) {
    const int home = homes[i];
    const int64_t cost = matrices[i].is.cost();
    if (home < 0 || (costs[size_t(home)] + cost) * ranks > total) {
      rest.push_back(i);
      continue;
    }
    matrices[i].owner = home;
    costs[size_t(home)] += cost;
  }
  for (const size_t i : rest) {
    const auto least = std::min_element(costs.begin(), costs.end());  // of equals the first
    matrices[i].owner = int(least - costs.begin());
    *least += matrices[i].is.cost();
  }
  return costs;
}

// What each owner takes in each round: [round][owner], matrices of one shape together.
std::vector<std::vector<std::vector<Matrix>>> rounds_of(const std::vector<OwnedMatrix>& matrices,
                                                        int ranks, int64_t most) {
  std::vector<std::vector<Matrix>> of(static_cast<size_t>(ranks));
  for (const OwnedMatrix& m : matrices) of[size_t(m.owner)].push_back(m.is);
  std::vector<std::vector<std::vector<Matrix>>> rounds;
  for (size_t r = 0; r < of.size(); ++r) {
    std::stable_sort(of[r].begin(), of[r].end(), [](const Matrix& a, const Matrix& b) {
      return std::tie(a.rows, a.columns) < std::tie(b.rows, b.columns);
    });
    size_t round = 0;
    int64_t elements = 0;
    for (const Matrix& m : of[r]) {
      if (elements > 0 && elements + m.numel() > most) ++round, elements = 0;
      if (round >= rounds.size()) rounds.emplace_back(size_t(ranks));
      rounds[round][r].push_back(m);
      elements += m.numel();
    }
  }
  return rounds;
}

void add_piece(MuonRound& round, const Matrix& m, const ElementRange& part) {
  const int64_t count = part.end - part.begin;
  round.given += count;
  if (!round.pieces.empty()) {
    MuonRound::Piece& last = round.pieces.back();
    if (last.param == m.param && last.begin + last.count == part.begin &&
        last.longer == m.longer()) {
      last.count += count;
      return;
    }
  }
  round.pieces.push_back({m.param, part.begin, count, m.longer()});
}

void add_move(MuonRound& round, int64_t to, int64_t count) {
  const int64_t from = round.got;
  round.got += count;
  if (!round.moves.empty()) {
    MuonRound::Move& last = round.moves.back();
    if (last.from + last.count == from && last.to + last.count == to) {
      last.count += count;
      return;
    }
  }
  round.moves.push_back({from, to, count});
}

MuonRound round_of(const std::vector<std::vector<Matrix>>& by_owner, const ShardGroup& group) {
  MuonRound round;
  for (const std::vector<Matrix>& matrices : by_owner) {
    const int64_t before = round.given;
    for (const Matrix& m : matrices) {
      const ElementRange part = part_of(m, group, group.rank);
      if (part.begin < part.end) add_piece(round, m, part);
    }
    round.gives.push_back(round.given - before);
  }
  const std::vector<Matrix>& mine = by_owner[size_t(group.rank)];
  round.runs = runs_of(mine);
  for (int r = 0; r < group.size(); ++r) {
    const int64_t before = round.got;
    int64_t at = 0;  // of the matrix in the third buffer
    for (const Matrix& m : mine) {
      const ElementRange part = part_of(m, group, r);
      if (part.begin < part.end) add_move(round, at + part.begin - m.begin, part.end - part.begin);
      at += m.numel();
    }
    round.gets.push_back(round.got - before);
  }
  return round;
}

}  // namespace

MuonPlan plan_muon(const std::vector<Matrix>& matrices, const ShardGroup& group,
                   const ParamStore& params, int64_t round_elements) {
  MuonPlan plan;
  std::vector<int> homes;
  for (const Matrix& m : matrices) {
    const int home = home_of(m, group, params);
    if (home == -2) continue;
    plan.matrices.push_back({m, -1});
    homes.push_back(home);
  }
  plan.costs = assign(plan.matrices, homes, group.size());
  for (const auto& by_owner : rounds_of(plan.matrices, group.size(), round_elements))
    plan.rounds.push_back(round_of(by_owner, group));
  return plan;
}

}  // namespace sluice
