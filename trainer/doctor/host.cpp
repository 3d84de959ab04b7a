// trainer/doctor/host.cpp -- processor, memory, limits, GPUs, and the run's folder.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "kernels/base/instruction_set.h"
#include "kernels/gemm/gemm.h"
#include "kernels/tensor/buffer.h"
#include "model/autograd/plain_store.h"
#include "model/export/posix_file.h"
#include "model/lm/lm.h"
#include "trainer/doctor/doctor.h"
#include "trainer/loop/device.h"
#include "trainer/loop/exit_code.h"
#include "trainer/loop/memory.h"

namespace sluice {
namespace {

using State = Finding::State;
constexpr double kGiB = double(int64_t(1) << 30);

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

int64_t available_memory() {  // bytes
  std::ifstream in("/proc/meminfo");
  for (std::string key, unit; in >> key;) {
    int64_t kib = 0;
    in >> kib >> unit;
    if (key == "MemAvailable:") return kib << 10;
  }
  return -1;
}

// What all ranks together keep of a model between steps, at most; -1: not known here.
int64_t checkpoint_bytes(Config config) {
  try {
    open_vocabulary(config);
    PlainStore params(DType::f32);
    const Lm lm(config.model, params);
    return params.numel() * (config.optim.kind == "muon" ? 8 : 12);
  } catch (const Error&) {  // the finding "config" says why
    return -1;
  }
}

Finding memory_finding(const Config& config, int ranks_here) {
  Finding f{.what = "memory", .found = {}, .advice = {}};
  const double free = double(available_memory()) / kGiB;
  f.found = fmt::format("{:.1f} GiB available for {} ranks of this machine", free, ranks_here);
  if (device_of(config.run.device) == Device::cuda) return f;
  double need = 0;
  try {
    need = double(plan_memory(config).total()) / kGiB;
  } catch (const Error& e) {
    return {State::bad, "config", e.what(), "correct the config, or the file that it names"};
  }
  f.found += fmt::format("; one that has the whole model takes {:.1f} GiB", need);
  if (ranks_here == 1 && need > free) {
    f.state = State::bad;
    f.advice = "use more ranks, a smaller train.micro_batch_tokens, or train.recompute: block";
  }
  return f;
}

// What a command prints; empty if it is not there or fails.
std::string ask(const std::string& command) {
  FILE* out = ::popen((command + " 2>/dev/null").c_str(), "r");
  if (!out) return "";
  std::string text;
  for (int c; (c = std::fgetc(out)) != EOF;) text += char(c);
  return ::pclose(out) == 0 ? text : "";
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// MiB a second of a file that is on the disk when the clock stops.
double write_speed(const std::string& path, int64_t bytes) {
  const Buffer block(DType::u8, {int64_t(4) << 20});
  const double begin = seconds();
  PosixFile file = PosixFile::create(path);
  for (int64_t at = 0; at < bytes; at += block.view().bytes())
    file.write(at, block.view().data, block.view().bytes());
  file.sync();
  file.close();
  const double taken = seconds() - begin;
  remove_tree(path);
  return double(bytes) / (1 << 20) / taken;
}

}  // namespace

Findings examine_host(const Config& config, int ranks_here) {
  Findings list;
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  list.push_back({State::fine, "processor",
                  fmt::format("{} hardware threads, kernels {}, GEMM by {}", cores,
                              instruction_set(), gemm_library()),
                  ""});
  const int64_t wanted = config.run.threads.value_or(cores) * ranks_here;
  if (wanted > int64_t(cores))
    list.push_back(
        {State::note, "threads",
         fmt::format("{} ranks of this machine run {} threads on {}", ranks_here, wanted, cores),
         fmt::format("set run.threads: {}", std::max(1u, cores / unsigned(ranks_here)))});
  const std::string governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  if (governor == "powersave" || governor == "conservative")
    list.push_back({State::note, "clock", "the governor of cpu0 is " + governor,
                    "cpupower frequency-set -g performance"});
  list.push_back(memory_finding(config, ranks_here));
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const bool few = files.rlim_cur < 1024;
  list.push_back({few ? State::bad : State::fine, "open files",
                  fmt::format("up to {} at a time", files.rlim_cur),
                  few ? "ulimit -n 1024, or more" : ""});
  return list;
}

Findings examine_gpus(const Config& config, int ranks_here) {
  if (device_of(config.run.device) != Device::cuda)
    return {{State::fine, "GPU", "not asked for (run.device: " + config.run.device + ")", ""}};
  const std::string gpus =
      ask("nvidia-smi --format=csv,noheader --query-gpu=name,driver_version,memory.free,clocks.sm,"
          "clocks.max.sm,ecc.errors.uncorrected.volatile.total,clocks_throttle_reasons.active");
  if (gpus.empty())
    return {{State::bad, "GPU", "nvidia-smi finds none",
             "load the driver, or ask the scheduler for GPUs, or set run.device: cpu"}};
  Findings list;
  int count = 0;
  std::istringstream lines(gpus);
  for (std::string l; std::getline(lines, l); ++count) {
    const bool broken =
        l.find(", 0, 0x") == std::string::npos && l.find(", [N/A], 0x") == std::string::npos;
    list.push_back({broken ? State::bad : State::fine, fmt::format("GPU {}", count),
                    l + " (free memory, clock, its limit, memory errors, reasons to throttle)",
                    broken ? "memory errors: reset the GPU, or take it out of the job" : ""});
  }
  if (count < ranks_here)
    list.push_back({State::note, "GPUs", fmt::format("{} ranks share {}", ranks_here, count),
                    "start one rank a GPU, unless that is a test"});
  const std::string topology = ask("nvidia-smi topo -m");
  list.push_back({State::fine, "links",
                  count < 2 ? "one GPU" : "as nvidia-smi topo -m has them\n" + topology, ""});
  return list;
}

Findings examine_folder(const Config& config, int rank) {
  Findings list;
  const std::string& dir = config.run.dir;
  try {
    make_folder(dir);
    struct statvfs disk {};
    SLUICE_CHECK(::statvfs(dir.c_str(), &disk) == 0, dir);
    const double free = double(disk.f_bavail) * double(disk.f_frsize) / kGiB;
    const double one = double(checkpoint_bytes(config)) / kGiB;
    const int64_t kept = config.checkpoint.keep_last + 1;  // the new one before the oldest goes
    const bool full = one > 0 && free < one * double(kept);
    list.push_back(
        {full ? State::bad : State::fine, "disk",
         fmt::format("{}: {:.1f} GiB free, {} checkpoints of {:.3f} GiB", dir, free, kept,
                     std::max(0.0, one)),
         full ? "free some, set a smaller checkpoint.keep_last, or another run.dir" : ""});
    const double speed = write_speed(cat(dir, "/.doctor-", rank), int64_t(64) << 20);
    const bool slow = speed < 20;
    list.push_back({slow ? State::note : State::fine, "write speed",
                    fmt::format("{:.0f} MiB/s; a checkpoint takes {:.1f} s if ranks do not add up",
                                speed, std::max(0.0, one) * 1024 / speed),
                    slow ? "save less often, and leave checkpoint.async on" : ""});
  } catch (const Error& e) {
    list.push_back({State::bad, "run folder", e.what(), "set a run.dir that can be written to"});
  }
  return list;
}

}  // namespace sluice
