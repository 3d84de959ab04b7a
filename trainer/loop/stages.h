// trainer/loop/stages.h -- train.stages resolved: which data and which schedule a step has.
#pragma once

#include <string>
#include <vector>

#include "trainer/loop/config.h"

namespace sluice {

// Steps begin .. end - 1, counted from 0, read with one loader whose step 0 is `begin`. A stage
// that changes neither rows nor data begins no part: its data goes on where it is. The seed of a
// later part is drawn from data.seed and its first step, so that it does not repeat the order of an
// earlier one.
struct DataPart {
  int64_t begin = 0, end = 0;
  DataConfig data;
};
std::vector<DataPart> data_parts(const Config& config);

// Steps begin .. end - 1 under one learning rate and schedule, whose steps count from `begin`.
struct SchedulePart {
  int64_t begin = 0, end = 0;
  OptimConfig optim;
};
std::vector<SchedulePart> schedule_parts(const Config& config);

// Of the step that follows `steps_done` steps.
double lr_after(const std::vector<SchedulePart>& parts, int64_t steps_done);

// Data of steps that are done already and that `now` would have read otherwise, by name: a run that
// goes on after `steps_done` steps is another one then.
std::vector<std::string> changed_past(const Config& before, const Config& now, int64_t steps_done);

std::string stage_table(const std::vector<DataPart>& data, const std::vector<SchedulePart>& lr,
                        int64_t batch_tokens);  // printed at start; empty: there is one part only

}  // namespace sluice
