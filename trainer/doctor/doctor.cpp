// trainer/doctor/doctor.cpp -- the findings of all ranks as one text.
#include "trainer/doctor/doctor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "trainer/checkpoint/exchange.h"

namespace sluice {
namespace {

using nlohmann::json;

std::string host_name() {
  std::array<char, 256> host{};
  return ::gethostname(host.data(), host.size() - 1) == 0 ? host.data() : "unknown host";
}

std::string line(const Finding& f, const std::string& where) {
  const char* mark = f.state == Finding::State::bad    ? "BAD "
                     : f.state == Finding::State::note ? "note"
                                                       : "fine";
  std::string text = fmt::format("{}  {:<16} {}{}\n", mark, f.what, where, f.found);
  if (!f.advice.empty()) text += fmt::format("      {:<16} -> {}\n", "", f.advice);
  return text;
}

}  // namespace

Diagnosis diagnose(const Config& config, Comm& world) {
  const std::vector<std::string> hosts = gather_texts(world, host_name());
  const std::string& here = hosts[size_t(world.rank())];
  const int ranks_here = int(std::count(hosts.begin(), hosts.end(), here));
  Findings mine = examine_host(config, ranks_here);
  for (const Findings& more :
       {examine_gpus(config, ranks_here), examine_folder(config, world.rank())})
    mine.insert(mine.end(), more.begin(), more.end());
  json j = json::array();
  for (const Finding& f : mine) j.push_back({int(f.state), f.what, f.found, f.advice});
  Findings common = examine_ranks(config, world);
  Diagnosis d;
  const std::vector<std::string> all = gather_texts(world, j.dump());
  for (size_t r = 0; r < all.size(); ++r)
    for (const json& f : json::parse(all[r])) {
      const Finding finding{Finding::State(int(f[0])), f[1], f[2], f[3]};
      d.healthy = d.healthy && finding.state != Finding::State::bad;
      if (r == 0 || finding.state != Finding::State::fine)
        d.text += line(finding, r == 0 ? "" : fmt::format("rank {} on {}: ", r, hosts[r]));
    }
  for (const Finding& f : common) {
    d.healthy = d.healthy && f.state != Finding::State::bad;
    d.text += line(f, "");
  }
  d.text += d.healthy ? "nothing is in the way of this run\n" : "see BAD above\n";
  return d;
}

}  // namespace sluice
