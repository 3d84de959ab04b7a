// trainer/sweep/plan_checks.h -- what a plan's runs need, and when two of them are the same.
#pragma once

#include <set>
#include <string>

#include "trainer/loop/exit_code.h"
#include "trainer/sweep/plan.h"

namespace sluice {

// The config without what changes no result, and without keys that nothing reads.
std::string essence(Config c);

// Names the files, and sweep.prepare.
ExitError missing_data(const std::set<std::string>& files, const SweepConfig& sweep);

}  // namespace sluice
