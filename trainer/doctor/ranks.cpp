// trainer/doctor/ranks.cpp -- what must be equal on all ranks, and how fast they are.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "kernels/tensor/buffer.h"
#include "model/export/posix_file.h"
#include "trainer/checkpoint/exchange.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/run_lock.h"
#include "trainer/doctor/doctor.h"
#include "trainer/loop/fingerprint.h"

namespace sluice {
namespace {

using nlohmann::json;
using State = Finding::State;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string own_checksum() {
  const std::string self = "/proc/self/exe";
  const int64_t bytes = PosixFile::open(self).size();
  return fmt::format("{} ({} bytes)", hex(crc32_of_file(self, bytes)), bytes);
}

// "rank 2 has x, rank 0 has y" of the first rank that differs.
Finding compare(const std::string& what, const std::vector<std::string>& all,
                const std::string& advice) {
  for (size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0])
      return {State::bad, what, cat("rank ", r, " has ", all[r], ", rank 0 has ", all[0]), advice};
  return {State::fine, what,
          cat(all[0], all.size() > 1 ? cat(" on all ", all.size(), " ranks") : ""), ""};
}

Finding compare_configs(const Config& config, Comm& world) {
  const std::string mine = config::print(config);
  const std::vector<std::string> all = gather_texts(world, mine);
  const std::string hash = hex(crc32_of(all[0].data(), int64_t(all[0].size())));
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    const auto first = config::load_string<Config>(all[0], "config of rank 0");
    const auto other = config::load_string<Config>(all[r], cat("config of rank ", r));
    const auto d = config::diff(first, other).at(0);
    return {State::bad, "config", cat("rank ", r, " has ", d.key, ": ", d.b, ", rank 0 has ", d.a),
            "start all ranks with one config and the same --set"};
  }
  return {State::fine, "config", cat("crc32 ", hash, all.size() > 1 ? ", the same on all" : ""),
          ""};
}

// What rank 0 writes must be what the others read.
Finding shared_folder(const Config& config, Comm& world) {
  const std::string path = config.run.dir + "/.doctor-shared";
  std::string error;
  const std::string token = broadcast_text(
      world, fmt::format("{}", std::chrono::system_clock::now().time_since_epoch().count()));
  try {
    if (world.rank() == 0) replace_text(path, token);
  } catch (const Error& e) {
    error = e.what();
  }
  world.barrier();
  try {
    if (error.empty() && read_text(path) != token) error = path + " is another file here";
  } catch (const Error& e) {
    error = e.what();
  }
  const std::string all = errors_of_ranks(world, error);
  if (world.rank() == 0 && exists(path)) remove_tree(path);
  if (all.empty()) return {State::fine, "shared folder", config.run.dir + " is one folder", ""};
  return {State::bad, "shared folder", all,
          "run.dir must be on a file system that all nodes mount at the same path"};
}

Finding lock_finding(const Config& config, Comm& world) {
  std::string error;
  try {
    if (world.rank() == 0) const RunLock lock(config.run.dir);
  } catch (const Error& e) {
    error = e.what();
  }
  error = errors_of_ranks(world, error);
  if (error.empty()) return {State::fine, "run lock", "free", ""};
  return {State::bad, "run lock", error, "end that job, or give this one another run.dir"};
}

// Bytes that arrive at a rank, a second.
Finding bandwidth(Comm& world) {
  if (world.size() == 1) return {State::fine, "bandwidth", "one rank", ""};
  const int64_t n = int64_t(4) << 20;  // bytes of a rank
  const Buffer part(DType::u8, {n}), all(DType::u8, {n * world.size()});
  double best = 1e30, latency = 1e30;
  for (int i = 0; i < 4; ++i) {
    world.barrier();
    double begin = seconds();
    world.barrier();
    latency = std::min(latency, seconds() - begin);
    begin = seconds();
    world.all_gather(part.view(), all.view());
    best = std::min(best, seconds() - begin);
  }
  const std::vector<std::string> rates =
      gather_texts(world, fmt::format("{:.3f}", double(n) * double(world.size() - 1) / best / 1e9));
  size_t slowest = 0;
  for (size_t r = 0; r < rates.size(); ++r)
    if (std::stod(rates[r]) < std::stod(rates[slowest])) slowest = r;
  return {State::fine, "bandwidth",
          fmt::format("{} GB/s into the slowest rank, {} (all-gather of host memory); barrier "
                      "{:.0f} us",
                      rates[slowest], slowest, 1e6 * latency),
          ""};
}

}  // namespace

Findings examine_ranks(const Config& config, Comm& world) {
  Findings list;
  list.push_back(compare("program", gather_texts(world, own_checksum()),
                         "copy one build to all nodes, or use a shared folder"));
  list.push_back(compare_configs(config, world));
  const auto mine = fingerprint({});
  const std::vector<std::string> prints = gather_texts(world, json(mine).dump());
  for (const auto& [key, value] : mine) {
    std::vector<std::string> all;
    for (const std::string& p : prints) all.push_back(json::parse(p).value(key, ""));
    const Finding f = compare(key, all, "equal runs give equal bits only where this is equal");
    list.push_back({f.state == State::bad ? State::note : f.state, f.what, f.found, f.advice});
  }
  list.push_back(shared_folder(config, world));
  list.push_back(lock_finding(config, world));
  list.push_back(bandwidth(world));
  return list;
}

}  // namespace sluice
