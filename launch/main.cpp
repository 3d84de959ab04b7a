// launch/main.cpp -- the program: the command line, and errors as exit codes.
#include <cstdio>
#include <exception>

#include "launch/arguments.h"
#include "trainer/loop/exit_code.h"

int main(int argc, char** argv) {
  int status = 0;
  CLI::App app{"sluice: trains hybrid linear-attention language models"};
  app.set_version_flag("--version", sluice::launch::version);
  app.require_subcommand(1);
  using namespace sluice::launch;
  add_data(app, status);
  add_runs(app, status);
  add_generate(app);
  add_eval(app);
  add_bench(app);
  add_export(app);
  add_checks(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : int(sluice::ExitCode::config);
  } catch (const sluice::ExitError& e) {
    std::fprintf(stderr, "sluice: %s\n", e.what());
    return int(e.code);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sluice: %s\n", e.what());
    return 1;
  }
  return status;
}
