// trainer/loop/compare.h -- are two runs the same, bit for bit?
#pragma once

#include <string>
#include <vector>

namespace sluice {

// Losses, gradient norms and learning rates of every step in metrics.jsonl (times are not
// compared), and the weights and optimizer states of the newest checkpoints. One line a difference;
// empty: none.
std::vector<std::string> compare_runs(const std::string& run_a, const std::string& run_b);

}  // namespace sluice
