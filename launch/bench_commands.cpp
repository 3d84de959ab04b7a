// launch/bench_commands.cpp -- bench op, step and decode.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "launch/commands.h"
#include "trainer/bench/decode_bench.h"
#include "trainer/bench/step_bench.h"
#include "trainer/bench/subject.h"
#include "trainer/gradcheck/gradcheck.h"

namespace sluice::launch {

namespace fs = std::filesystem;

// The programs bench_<op> beside this one.
static std::set<std::string> benches_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const fs::directory_entry& e : fs::directory_iterator(folder)) {
    const std::string name = e.path().filename();
    if (name.rfind("bench_", 0) == 0) names.insert(name.substr(std::strlen("bench_")));
  }
  return names;
}

// Of one op's rows, the fast path's; ops whose backward is no gradient have none.
static void check_op(const std::string& op) {
  Arena arena(Device::cpu, int64_t(1) << 30);  // pages are taken as they are touched
  std::vector<GradcheckRow> rows;
  for (GradcheckRow& row : gradcheck_ops({.arena = &arena}, 1))
    if (row.name.rfind(op, 0) == 0 && (row.name[op.size()] == ' ' || row.name[op.size()] == ':'))
      rows.push_back(std::move(row));
  if (rows.empty()) return;
  fmt::print("fast path against f64 central differences\n{}", to_string(rows));
  SLUICE_CHECK(worst(rows) < 1e-6, op, ": the worst error is ", worst(rows),
               ", expected below 1e-6");
}

void bench_op(const BenchOp& c) {
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  const std::set<std::string> there = benches_in(folder);
  if (!there.contains(c.op))
    throw Error(cat("there is no program ", (folder / ("bench_" + c.op)).string(),
                    "; expected one of: ",
                    there.empty() ? "(none; cmake --build BUILD --target benches)"
                                  : fmt::format("{}", fmt::join(there, ", "))));
  check_op(c.op);
  std::fflush(stdout);
  const std::string program = folder / ("bench_" + c.op);
  std::vector<std::string> args{program, "--benchmark_repetitions=5",
                                "--benchmark_report_aggregates_only=true"};
  args.insert(args.end(), c.arguments.begin(), c.arguments.end());
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  throw Error(cat(program, ": ", std::strerror(errno)));
}

void bench_step(const BenchStep& c) {
  const nlohmann::ordered_json report =
      sluice::bench_step(load(c.config), {.repeats = c.repeats, .check = c.check});
  fmt::print("{}", c.json ? report.dump(1) + "\n" : bench_step_text(report));
}

// One object, or a list of them.
static void print_json(const std::vector<nlohmann::ordered_json>& reports) {
  const nlohmann::ordered_json all = reports;
  fmt::print("{}\n", (reports.size() == 1 ? reports.front() : all).dump(1));
}

void bench_decode(const BenchDecode& c) {
  const GenerationSubject subject(load(c.config));
  std::vector<nlohmann::ordered_json> reports;
  for (const int64_t context : c.context_tokens)
    for (const bool most : {false, true}) {
      if (most && !c.most_slots) continue;
      reports.push_back(sluice::bench_decode(
          subject, {.context_tokens = context,
                    .new_tokens = c.new_tokens,
                    .slots = c.slots,
                    .most_slots = most,
                    .fill = c.made_up ? ContextFill::made_up : ContextFill::prefill}));
      if (!c.json) fmt::print("{}", bench_decode_text(reports.back()));
      std::fflush(stdout);
    }
  if (c.json) print_json(reports);
}

void bench_prefill(const BenchPrefill& c) {
  const GenerationSubject subject(load(c.config));
  std::vector<nlohmann::ordered_json> reports;
  for (const int64_t context : c.context_tokens) {
    reports.push_back(sluice::bench_prefill(
        subject, {.context_tokens = context, .chunk_tokens = c.chunk_tokens, .points = c.points}));
    if (!c.json) fmt::print("{}", bench_prefill_text(reports.back()));
    std::fflush(stdout);
  }
  if (c.json) print_json(reports);
}

}  // namespace sluice::launch
