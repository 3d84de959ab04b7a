// trainer/sweep/slurm.cpp -- a script, its tasks, and the job's number.
#include "trainer/sweep/slurm.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "model/export/posix_file.h"
#include "trainer/sweep/run_files.h"

namespace sluice {

namespace fs = std::filesystem;

static std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

struct Answer {
  std::string line;  // the first one
  bool ok = false;   // exit code 0
};
static Answer ask(const std::string& command) {
  FILE* out = popen(command.c_str(), "r");
  SLUICE_CHECK(out, command);
  std::array<char, 512> line{};
  const bool got = fgets(line.data(), int(line.size()), out) != nullptr;
  while (fgetc(out) != EOF) {
  }
  const std::string text = got ? std::string(line.data()) : "";
  return {text.substr(0, text.find('\n')), pclose(out) == 0};
}

// A squeue that fails says nothing about the job, unless it no longer knows it.
static bool is_gone(const std::string& job) {
  const std::string squeue = "squeue -h -j " + quoted(job);
  const Answer a = ask(squeue + " 2>/dev/null");
  if (a.ok) return a.line.empty();
  const std::string why = ask(squeue + " 2>&1 >/dev/null").line;
  if (why.find("Invalid job id") != std::string::npos) return true;
  fmt::print("squeue failed: {}\n", why);
  return false;
}

// `tasks` has a folder a line. The shell waits beside the run: it hears Slurm's signal, passes it
// on, and asks for another turn if the run saved because of it.
static std::string script(const SweepPlan& plan, const std::string& program, size_t count,
                          const std::string& tasks) {
  std::string out = fmt::format(
      "#!/usr/bin/env bash\n"
      "#SBATCH --job-name={}\n"
      "#SBATCH --array=0-{}\n"
      "#SBATCH --output={}/slurm/%A_%a.out\n"
      "#SBATCH --requeue\n"
      "#SBATCH --signal=B:USR1@120\n",
      plan.sweep.name, count - 1, plan.sweep.dir);
  for (const std::string& option : plan.sweep.slurm) out += "#SBATCH " + option + "\n";
  return out +
         fmt::format(
             "set -uo pipefail\n"
             "cd {}\n"
             "run=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {})\n"
             "{} train \"$run/run.yaml\" --set run.threads=\"${{SLURM_CPUS_PER_TASK:-1}}\" "
             ">>\"$run/log.txt\" 2>&1 &\n",
             quoted(fs::current_path()), quoted(tasks), quoted(program)) +
         "pid=$!\n"
         "trap 'kill -USR1 $pid' USR1 TERM\n"
         "wait $pid\n"
         "code=$?\n"
         "while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done  # a signal ends a wait "
         "early\n"
         "wait $pid; code=$?  # it may end between a signal and the loop\n"
         "[ $code -ne 75 ] || scontrol requeue \"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID\"\n"
         "exit $code\n";
}

// A job that is queued or runs has its own list of tasks: a new one gets a new name.
static std::string new_tasks_file(const std::string& folder) {
  for (int n = 1;; ++n) {
    const std::string path = fmt::format("{}/tasks-{}.txt", folder, n);
    if (!fs::exists(path)) return path;
  }
}

ArrayJob submit_array(const SweepPlan& plan, const std::string& program) {
  ArrayJob job;
  std::string tasks;
  for (const SweepRun& run : plan.runs) {
    const std::string dir = plan.run_dir(run);
    const RunStatus s = read_status(dir);
    if (s.state == RunStatus::State::done) continue;
    if (s.state == RunStatus::State::stopped) {
      job.failed.push_back({run.name, "not finite: " + s.why});
      continue;
    }
    tasks += dir + "\n";
    ++job.waiting;
    fmt::print("  {}: step {} of {}\n", run.name, s.step, run.config.train.steps);
  }
  if (job.waiting == 0) return job;
  const std::string folder = plan.sweep.dir + "/slurm", number = folder + "/job";
  fs::create_directories(folder);
  const std::string before = fs::exists(number) ? read_text(number) : "";
  if (!before.empty() && !is_gone(before)) {
    fmt::print("job {} is queued or runs\n", before);
    return job;
  }
  const std::string list = new_tasks_file(folder), array = folder + "/array.sh";
  replace_text(list, tasks);
  replace_text(array, script(plan, program, job.waiting, list));
  fmt::print("sbatch {}\n", array);
  const Answer submitted = ask("sbatch --parsable " + quoted(array) + " 2>/dev/null");
  const std::string id = submitted.line.substr(0, submitted.line.find(';'));  // ID or ID;CLUSTER
  if (!submitted.ok || id.empty()) {
    fmt::print(
        "not submitted: sbatch is not there, or failed. Run the line above, and this command "
        "again for the table\n");
    return job;
  }
  replace_text(number, id);
  fmt::print("job {} is submitted; this command again shows how far it is, and the table\n", id);
  return job;
}

}  // namespace sluice
