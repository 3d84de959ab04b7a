// launch/arguments.h -- the grammar of the command line, a file a group of commands. Each
// subcommand fills a struct of commands.h and calls one function. Only these files see CLI11: it
// takes seconds to compile.
#pragma once

#include <CLI/CLI.hpp>

#include "launch/commands.h"

namespace sluice::launch {

// status: the exit code, where a command sets one.
void add_data(CLI::App& app, int& status);
void add_runs(CLI::App& app, int& status);
void add_generate(CLI::App& app);
void add_eval(CLI::App& app);
void add_bench(CLI::App& app);
void add_checks(CLI::App& app, int& status);
void add_export(CLI::App& app);

// CONFIG and --set, of every command that reads a config.
void add_config_options(CLI::App& app, ConfigSource& c);

CLI::Validator count();  // above 0

}  // namespace sluice::launch
