// launch/report_command.cpp -- report.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/commands.h"
#include "model/export/posix_file.h"
#include "trainer/report/report.h"

namespace sluice::launch {

void report(const Report& c) {
  const nlohmann::ordered_json data = report_data(c.folders);
  const std::string page = report_html(data);
  replace_text(c.out, page);
  for (const auto& part : {data.at("sweeps"), data.at("runs")})
    for (const auto& item : part)
      for (const auto& problem : item.at("problems"))
        fmt::print("{}: {}\n", item.at("dir").get<std::string>(), problem.get<std::string>());
  fmt::print("{}: {} runs, {} sweeps, {:.1f} MB; open it in a browser\n", c.out,
             data.at("runs").size(), data.at("sweeps").size(), double(page.size()) / 1e6);
}

}  // namespace sluice::launch
