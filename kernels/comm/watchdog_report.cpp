// kernels/comm/watchdog_report.cpp -- from what ranks said last to who is missing where.
#include "kernels/comm/watchdog_report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <sstream>

#include "kernels/base/check.h"

namespace sluice {
namespace {

constexpr char kField = '\x1f', kCall = '\x1e';

std::string seconds_text(double s) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", s);
  return text;
}

std::vector<std::string> split_text(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

std::string name_of(const WatchedCall& c) {
  return cat(c.text, " (call ", c.number, " of ", c.group, ")");
}

std::string label(int rank, const WatchedRank& r) {
  return cat("rank ", rank, " (", r.where, ")");
}

// Where ranks are that have not left a collective.
struct Place {
  WatchedCall call;
  std::vector<int> inside, missing;
};

bool reached(const WatchedRank& r, const WatchedCall& call) {
  return std::any_of(r.calls.begin(), r.calls.end(), [&](const WatchedCall& c) {
    return c.group == call.group && c.ranks == call.ranks && c.number >= call.number;
  });
}

std::vector<Place> places(const std::vector<WatchedRank>& ranks) {
  std::map<std::tuple<std::string, std::string, int64_t>, Place> found;
  for (size_t r = 0; r < ranks.size(); ++r)
    for (const WatchedCall& c : ranks[r].calls)
      if (!c.left) {
        Place& p = found[{c.group, c.ranks, c.number}];
        if (p.inside.empty() || c.seconds > p.call.seconds) p.call = c;
        p.inside.push_back(int(r));
      }
  std::vector<Place> all;
  for (auto& [key, p] : found) {
    for (const int r : ranks_of(p.call.ranks))
      if (size_t(r) < ranks.size() && !reached(ranks[size_t(r)], p.call)) p.missing.push_back(r);
    all.push_back(std::move(p));
  }
  return all;
}

std::string last_calls(const WatchedRank& r) {
  if (r.calls.empty()) return "no collective yet";
  std::string text;
  int shown = 0;
  for (auto c = r.calls.rbegin(); c != r.calls.rend() && shown < 5; ++c, ++shown)
    text += cat(text.empty() ? (c->left ? "after " : "in ") : ", ", name_of(*c),
                c->left || text.empty() ? "" : " (not done)");
  return text;
}

}  // namespace

std::vector<WatchedCall> watched(const std::vector<CommRecord>& records) {
  std::vector<WatchedCall> calls;
  const auto now = std::chrono::steady_clock::now();
  for (const CommRecord& r : records)
    calls.push_back({r.group, r.ranks, r.number,
                     cat(name(r.op), r.what.empty() ? "" : " '" + r.what + "'"),
                     std::chrono::duration<double>(now - r.entered).count(), r.left});
  return calls;
}

std::string encode(const std::vector<WatchedCall>& calls) {
  std::string line;
  for (const WatchedCall& c : calls)
    line += cat(c.group, kField, c.ranks, kField, c.number, kField, c.text, kField, c.seconds,
                kField, int(c.left), kCall);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

std::vector<WatchedCall> decode(const std::string& line) {
  std::vector<WatchedCall> calls;
  for (const std::string& text : split_text(line, kCall)) {
    const auto f = split_text(text, kField);
    SLUICE_CHECK(f.size() == 6, "a call of ", f.size(), " fields: ", text);
    calls.push_back({f[0], f[1], std::stoll(f[2]), f[3], std::stod(f[4]), f[5] == "1"});
  }
  return calls;
}

std::string problem(const std::vector<WatchedRank>& ranks, double timeout) {
  const auto first = std::max_element(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) {
    return a.gone < b.gone;  // others may be gone because it is
  });
  if (first->gone >= 0)
    return label(int(first - ranks.begin()), *first) + " is gone: its connection closed";
  for (size_t r = 0; r < ranks.size(); ++r)
    if (ranks[r].finished < 0 && ranks[r].silent > timeout)
      return cat(label(int(r), ranks[r]), " is silent for ", seconds_text(ranks[r].silent),
                 ": stopped, or its machine is");
  for (const Place& p : places(ranks))
    if (p.call.seconds > timeout)
      return cat("a collective takes ", seconds_text(p.call.seconds), ", allowed are ",
                 seconds_text(timeout), " (parallel.timeout_seconds)");
  for (size_t r = 0; r < ranks.size(); ++r)
    if (ranks[r].finished > timeout)
      return cat(label(int(r), ranks[r]), " finished ", seconds_text(ranks[r].finished),
                 " ago, others did not");
  return "";
}

std::string report(const std::string& problem, const std::vector<WatchedRank>& ranks) {
  std::string text = problem + "\n";
  for (const Place& p : places(ranks)) {
    if (p.missing.empty() && p.call.seconds < 1) continue;  // it goes well
    text += cat("  ", name_of(p.call), " of ranks ", p.call.ranks, ", for ",
                seconds_text(p.call.seconds), ": in it ", rank_list(p.inside), "; missing ",
                p.missing.empty() ? "nobody" : rank_list(p.missing), "\n");
  }
  std::vector<std::pair<std::string, std::vector<int>>> same;  // ranks that did the same last
  for (size_t r = 0; r < ranks.size(); ++r) {
    const std::string calls = last_calls(ranks[r]) + (ranks[r].finished < 0 ? "" : "; finished");
    const auto found =
        std::find_if(same.begin(), same.end(), [&](const auto& s) { return s.first == calls; });
    if (found == same.end())
      same.push_back({calls, {int(r)}});
    else
      found->second.push_back(int(r));
  }
  for (const auto& [calls, who] : same)
    text += cat("  ",
                who.size() == 1 ? label(who[0], ranks[size_t(who[0])]) : "ranks " + rank_list(who),
                ": ", calls, "\n");
  return text;
}

}  // namespace sluice
