// trainer/sweep/table_text.cpp -- a table as Markdown, CSV and JSON.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "trainer/sweep/table.h"

namespace sluice {

namespace {

std::string cell_text(const SweepColumn& c, const SweepCell* cell) {
  if (!cell) return "-";
  std::string text = fmt::format("{:.{}f}", cell->value.mean, c.digits);
  if (const auto se = cell->value.standard_error) text += fmt::format(" ± {:.{}f}", *se, c.digits);
  return text + (cell->ns ? " n.s." : "");
}

const SweepCell* cell_of(const SweepTableRow& row, const SweepColumn& c) {
  const auto it = row.cells.find(c.key);
  return it == row.cells.end() ? nullptr : &it->second;
}

// Characters, not bytes: "±" is one.
size_t width_of(const std::string& text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// Padded, so that it reads well as text too.
std::string markdown_rows(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths(lines.front().size(), 3);
  for (const auto& line : lines)
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], width_of(line[i]));
  std::string out;
  for (size_t n = 0; n < lines.size(); ++n) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string pad(widths[i] - width_of(lines[n][i]), ' ');
      out += "| " + (i == 0 ? lines[n][i] + pad : pad + lines[n][i]) + " ";
    }
    out += "|\n";
    if (n > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i)
      out += "|" + std::string(widths[i] + 1, '-') + (i == 0 ? "-" : ":");
    out += "|\n";
  }
  return out;
}

std::string noise_note(const SweepTable& t) {
  if (t.seeds < 2)
    return "1 seed: how far two seeds are apart is not known, so no difference is claimed.";
  return fmt::format(
      "± is the standard error of the mean over {} seeds; n.s.: at most two standard errors of the "
      "difference from {}.",
      t.seeds, t.baseline.empty() ? "the column's best" : t.baseline);
}

std::string fit_text(const SweepFit& f, const std::string& unit) {
  const auto error = [](const std::optional<double>& e) {
    return e ? fmt::format(" ± {:.3g}", *e) : std::string(" (2 points: no error)");
  };
  return fmt::format("- {}: L = a C^-b with a = {:.4g}{}, b = {:.4f}{} ({} points, C in {})\n",
                     f.name, f.law.a, error(f.law.a_error), f.law.b, error(f.law.b_error),
                     f.points.size(), unit);
}

}  // namespace

std::string to_markdown(const SweepTable& t) {
  std::string out = "# " + t.name + "\n\n";
  if (!t.label.empty()) out += "**" + t.label + "**\n\n";
  const bool tuned = std::any_of(t.rows.begin(), t.rows.end(),
                                 [](const SweepTableRow& r) { return !r.tuned.empty(); });
  std::vector<std::vector<std::string>> lines(1, {"variant"});
  if (tuned) lines[0].push_back("best of tune");
  for (const SweepColumn& c : t.columns) lines[0].push_back(c.title);
  for (const SweepTableRow& row : t.rows) {
    auto& line = lines.emplace_back(1, row.name);
    if (tuned) line.push_back(row.tuned);
    for (const SweepColumn& c : t.columns) line.push_back(cell_text(c, cell_of(row, c)));
  }
  out += markdown_rows(lines) + "\n" + noise_note(t) + "\n";
  for (const std::string& note : t.notes) out += note + "\n";
  if (!t.fits.empty()) out += "\n";
  for (const SweepFit& f : t.fits) out += fit_text(f, t.compute_unit);
  if (!t.failed.empty()) out += "\nFailed:\n\n";
  for (const FailedRun& f : t.failed) out += "- " + f.run + ": " + f.why + "\n";
  return out;
}

static std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

std::string to_csv(const SweepTable& t) {
  std::string out = "variant,tuned,seeds";
  for (const SweepColumn& c : t.columns)
    out += "," + csv_field(c.key) + "," + csv_field(c.key + ".standard_error") + "," +
           csv_field(c.key + ".ns");
  out += "\n";
  for (const SweepTableRow& row : t.rows) {
    out += fmt::format("{},{},{}", csv_field(row.name), csv_field(row.tuned), row.runs.size());
    for (const SweepColumn& c : t.columns) {
      const SweepCell* cell = cell_of(row, c);
      if (!cell) {
        out += ",,,";
        continue;
      }
      const auto se = cell->value.standard_error;
      out += fmt::format(",{},{},{}", cell->value.mean, se ? fmt::format("{}", *se) : "",
                         cell->ns ? 1 : 0);
    }
    out += "\n";
  }
  return out;
}

static nlohmann::ordered_json optional_number(const std::optional<double>& x) {
  return x ? nlohmann::ordered_json(*x) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json to_json(const SweepTable& t) {
  using Json = nlohmann::ordered_json;
  Json j{{"name", t.name}, {"label", t.label}, {"seeds", t.seeds}, {"notes", t.notes}};
  for (const char* list : {"columns", "rows", "failed", "fits"}) j[list] = Json::array();
  for (const SweepColumn& c : t.columns) {
    Json better = nullptr;
    if (c.better != Better::neither) better = c.better == Better::lower ? "lower" : "higher";
    j["columns"].push_back(
        {{"key", c.key}, {"title", c.title}, {"better", better}, {"digits", c.digits}});
  }
  for (const SweepTableRow& row : t.rows) {
    Json values = Json::object();
    for (const SweepColumn& c : t.columns)
      if (const SweepCell* cell = cell_of(row, c))
        values[c.key] = {{"mean", cell->value.mean},
                         {"spread", optional_number(cell->value.standard_error)},
                         {"n", cell->value.n},
                         {"ns", cell->ns}};
    j["rows"].push_back({{"variant", row.name},
                         {"group", row.group},
                         {"tuned", row.tuned},
                         {"runs", row.runs},
                         {"values", values}});
  }
  for (const FailedRun& f : t.failed) j["failed"].push_back({{"run", f.run}, {"why", f.why}});
  for (const SweepFit& f : t.fits)
    j["fits"].push_back({{"name", f.name},
                         {"a", f.law.a},
                         {"b", f.law.b},
                         {"a_error", optional_number(f.law.a_error)},
                         {"b_error", optional_number(f.law.b_error)},
                         {"unit", t.compute_unit},
                         {"points", f.points}});
  j["config_differences"] = t.config_differences;
  return j;
}

}  // namespace sluice
