// launch/check_arguments.cpp -- sluice doctor, gradcheck, inspect, compare, report.
#include "launch/arguments.h"

namespace sluice::launch {

void add_checks(CLI::App& app, int& status) {
  static ConfigSource patient;
  CLI::App* d = app.add_subcommand("doctor", "what may be in the way of a run, on all its ranks");
  add_config_options(*d, patient);
  d->callback([&status] { status = doctor(patient) ? 0 : 1; });

  static std::string config;
  CLI::App* g = app.add_subcommand("gradcheck", "backward against finite differences, f64");
  g->add_option("config", config, "a model of yours; without one, small models of every kind");
  g->callback([] { gradcheck(config); });

  static Inspect seen;
  CLI::App* i = app.add_subcommand(
      "inspect",
      "what is in a checkpoint, a .gguf file or a Hugging Face folder, and is it intact?");
  i->add_option("path", seen.path,
                "a run's folder, one checkpoint of it, other engines' folder or file")
      ->required();
  i->add_flag("--json", seen.json, "for programs");
  i->add_flag("--verify", seen.verify, "read every byte of all checkpoints of a run");
  i->callback([&status] { status = inspect(seen) ? 0 : 1; });

  static std::string a, b;
  CLI::App* c = app.add_subcommand("compare", "are two runs the same, bit for bit?");
  c->add_option("run_a", a)->required();
  c->add_option("run_b", b)->required();
  c->callback([&status] { status = compare(a, b) ? 0 : 1; });

  static Report rep;
  CLI::App* r = app.add_subcommand("report", "curves, tables and diagnostics as one HTML file");
  r->add_option("folders", rep.folders, "of runs and of sweeps")->required();
  r->add_option("--out", rep.out, "the file to write")->capture_default_str();
  r->callback([] { report(rep); });
}

}  // namespace sluice::launch
