// trainer/plan/plan_text.cpp -- a plan in tables.
#include <fmt/format.h>

#include <map>

#include "trainer/plan/plan.h"

namespace sluice {

namespace {

// Rows of one op and kind of tensor, over all layers: "layers.3 weights" is "weights".
std::string kind_of(const WireRow& r) {
  return r.overlaps ? r.what.substr(r.what.find(' ') + 1) : r.what;
}

std::string wire_table(const RunPlan& plan) {
  struct Sum {
    WireRow row;
    double seconds = 0;
  };
  std::map<std::pair<std::string, CommOp>, Sum> sums;
  WireRow all;
  for (const WireRow& r : plan.wire) {
    Sum& s = sums.try_emplace({kind_of(r), r.op}, Sum{}).first->second;
    for (WireRow* to : {&s.row, &all}) {
      to->calls += r.calls, to->bytes += r.bytes;
      to->inside += r.inside, to->between += r.between;
    }
    s.row.overlaps = r.overlaps;
    if (plan.figures) s.seconds += seconds(r, *plan.figures);
  }
  if (sums.empty()) return "on the wire: nothing, there is one rank\n";
  std::string text = fmt::format(
      "\non the wire, a rank and step: GB sent to other ranks, of them over the links of "
      "a node and between nodes\n  {:<36} {:>8} {:>12} {:>12} {:>12}{}\n",
      "what", "calls", "sent", "inside", "between", plan.figures ? "      seconds" : "");
  const auto line = [&](const std::string& what, const WireRow& r, const std::string& end) {
    return fmt::format("  {:<36} {:>8} {:>12.3f} {:>12.3f} {:>12.3f}{}\n", what, r.calls,
                       double(r.bytes) / 1e9, r.inside / 1e9, r.between / 1e9, end);
  };
  for (const auto& [key, s] : sums)
    text +=
        line(fmt::format("{} {}", key.first, name(key.second)), s.row,
             plan.figures
                 ? fmt::format(" {:>12.4f}{}", s.seconds,
                               s.row.overlaps && plan.figures->overlap ? "  beside compute" : "")
                 : "");
  return text + line("all", all, "");
}

std::string time_table(const RunPlan& plan) {
  const StepTime& t = plan.time;
  std::string text = fmt::format("\na step of {} micro-batches of {} tokens on {}, seconds\n",
                                 plan.micro_batches, plan.micro_batch_tokens, plan.figures->device);
  for (const Seconds& s : t.compute)
    if (s.seconds > 0) text += fmt::format("  {:<28} {:>12.4f}\n", s.what, s.seconds);
  text += fmt::format("  {:<28} {:>12.4f}\n  {:<28} {:>12.4f}\n", "compute", sum(t.compute),
                      "collectives beside it", t.beside);
  return text + fmt::format(
                    "  {:<28} {:>12.4f}\n  {:<28} {:>12.4f}   {:.0f} tokens/s, {:.0f} a "
                    "rank, MFU {:.1f} %\n",
                    "other collectives", t.exposed, "step", t.seconds,
                    double(plan.batch_tokens) / t.seconds,
                    double(plan.batch_tokens) / t.seconds / double(plan.mesh.ranks()), 100 * t.mfu);
}

}  // namespace

std::string to_string(const RunPlan& plan) {
  std::string text =
      fmt::format("{:.2f}B parameters, {:.2f}B active; {} ranks: {}\n",
                  double(plan.parameters) / 1e9, double(plan.active_parameters) / 1e9,
                  plan.mesh.ranks(), to_string(plan.mesh)) +
      to_string(plan.memory, plan.device + ", a rank");
  if (plan.figures) {
    const double free = plan.figures->memory_bytes - double(plan.memory.total());
    text += free >= 0 ? fmt::format("  it fits: {:.1f} GiB of {:.1f} are left\n", free / (1 << 30),
                                    plan.figures->memory_bytes / (1 << 30))
                      : fmt::format("  IT DOES NOT FIT: {:.1f} GiB more than {:.1f}\n",
                                    -free / (1 << 30), plan.figures->memory_bytes / (1 << 30));
  }
  text += wire_table(plan);
  return plan.figures ? text + time_table(plan) : text;
}

}  // namespace sluice
