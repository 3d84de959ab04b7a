// trainer/loop/inspect_text.cpp -- the report as text.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "trainer/loop/inspect.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

std::string size_text(const Json& bytes) {
  const double b = bytes.get<double>();
  if (b < 1 << 20) return fmt::format("{:.1f} KiB", b / (1 << 10));
  if (b < 1 << 30) return fmt::format("{:.1f} MiB", b / (1 << 20));
  return fmt::format("{:.2f} GiB", b / (1 << 30));
}

std::string plain(const Json& j) {  // a string without its quotes
  return j.is_string() ? j.get<std::string>() : j.dump();
}

std::string list_text(const Json& run) {
  std::string out = fmt::format("{:>10}  {:>10}  state\n", "step", "size");
  for (const Json& c : run.at("checkpoints")) {
    out += fmt::format("{:>10}  {:>10}  {}{}\n", c.at("step").get<int64_t>(),
                       size_text(c.at("bytes")), c.at("state") == "valid" ? "valid" : "BROKEN",
                       c.at("milestone").get<bool>() ? ", milestone" : "");
    for (const Json& p : c.at("problems")) out += fmt::format("{:>24}{}\n", "", plain(p));
  }
  if (run.at("verified") == "sizes")
    out += "valid by manifest, sizes and headers; --verify reads every byte of all\n";
  return out + "\n";
}

std::string map_text(const char* what, const Json& checkpoint) {
  if (!checkpoint.contains(what)) return "";
  std::string out = fmt::format("\n{}\n", what);
  for (const auto& item : checkpoint.at(what).items())
    out += fmt::format("  {:<24} {}\n", item.key(), plain(item.value()));
  return out;
}

std::string config_text(const Json& c) {
  if (c.contains("config_problem")) return "\nconfig\n  " + plain(c.at("config_problem")) + "\n";
  std::string out = "\nconfig, where it is not the default\n";
  for (const Json& d : c.at("config"))
    out += fmt::format("  {:<36} {}  (default {})\n", plain(d.at("key")), plain(d.at("value")),
                       plain(d.at("default")));
  return out;
}

std::string value(const Json& x) {
  return x.is_number() ? fmt::format("{:.4g}", x.get<double>()) : x.is_null() ? "-" : plain(x);
}

std::string part_text(const char* what, const Json& part) {
  std::string out =
      fmt::format("\n{}: {} tensors, {} elements, {}\n", what, part.at("tensors").size(),
                  part.at("elements").get<int64_t>(), size_text(part.at("bytes")));
  if (part.contains("problem")) out += "  BROKEN " + plain(part.at("problem")) + "\n";
  size_t width = 4;
  for (const Json& t : part.at("tensors"))
    width = std::max(width, t.at("name").get_ref<const std::string&>().size());
  out += fmt::format("  {:<{}}  {:<18} {:>10} {:>11} {:>11}\n", "name", width, "type", "norm",
                     "min", "max");
  for (const Json& t : part.at("tensors")) {
    out += fmt::format("  {:<{}}  {:<18} {:>10} {:>11} {:>11}", plain(t.at("name")), width,
                       plain(t.at("type")), value(t.at("norm")), value(t.at("min")),
                       value(t.at("max")));
    if (t.at("nonfinite") != 0)
      out += fmt::format("  {} NOT FINITE", t.at("nonfinite").get<int64_t>());
    if (t.at("checksum") != "right") out += "  checksum " + plain(t.at("checksum"));
    out += "\n";
  }
  return out;
}

std::string files_text(const Json& report) {
  const Json& f = report.at("files");
  std::string out = fmt::format("{}\n{}, {} tensors, {} elements, {}\n", plain(report.at("path")),
                                plain(f.at("kind")), f.at("tensors").size(),
                                f.at("elements").get<int64_t>(), size_text(f.at("bytes")));
  for (const Json& p : f.at("problems")) out += "BROKEN " + plain(p) + "\n";
  for (const auto& item : f.at("facts").items())
    out += fmt::format("  {:<48} {}\n", item.key(), plain(item.value()));
  size_t width = 4;
  for (const Json& t : f.at("tensors"))
    width = std::max(width, t.at("name").get_ref<const std::string&>().size());
  out += fmt::format("\n  {:<{}}  {:<22} {:>10} {:>11} {:>11}  file\n", "name", width, "type",
                     "norm", "min", "max");
  for (const Json& t : f.at("tensors"))
    out += fmt::format("  {:<{}}  {:<22} {:>10} {:>11} {:>11}  {}\n", plain(t.at("name")), width,
                       plain(t.at("type")), value(t.at("norm")), value(t.at("min")),
                       value(t.at("max")), plain(t.at("file")));
  return out;
}

}  // namespace

std::string inspect_text(const Json& report) {
  if (report.contains("files")) return files_text(report);
  const Json& c = report.at("checkpoint");
  std::string out = report.at("run").is_null() ? "" : list_text(report.at("run"));
  const int64_t ranks = c.value("ranks", int64_t(1));
  out += fmt::format("{}\nstep {}, {}{}{}\n", plain(c.at("folder")), c.at("step").get<int64_t>(),
                     size_text(c.at("bytes")),
                     c.contains("saved_at") ? ", saved " + plain(c.at("saved_at")) : "",
                     ranks > 1 ? fmt::format(" by {} ranks", ranks) : "");
  if (c.at("state") == "valid") out += "every checksum is right, every number is finite\n";
  for (const Json& p : c.at("problems")) out += "BROKEN " + plain(p) + "\n";
  out += map_text("integers", c) + map_text("numbers", c) + map_text("fingerprint", c);
  return out + config_text(c) + part_text("weights", c.at("weights")) +
         part_text("optimizer", c.at("optimizer"));
}

}  // namespace sluice
