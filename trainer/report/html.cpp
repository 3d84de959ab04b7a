// trainer/report/html.cpp -- puts style, data and script into the page.
#include <nlohmann/json.hpp>

#include "kernels/base/check.h"
#include "trainer/report/page.h"
#include "trainer/report/report.h"

namespace sluice {

namespace {

void fill(std::string& page, const std::string& slot, const std::string& text) {
  const size_t at = page.find(slot);
  SLUICE_CHECK(at != std::string::npos, "page.html has no ", slot);
  page.replace(at, slot.size(), text);
}

// JSON inside of a <script>: a "</script>" or "<!--" in some name must not end it.
std::string script_safe(const std::string& json) {
  std::string safe;
  safe.reserve(json.size());
  for (const char c : json) {
    if (c == '<')
      safe += "\\u003c";
    else
      safe += c;
  }
  return safe;
}

}  // namespace

std::string report_html(const nlohmann::ordered_json& data) {
  const std::string json =
      data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string page = kReportPage;
  fill(page, "@STYLE@", kReportStyle);
  fill(page, "@SCRIPT@", kReportScript);
  fill(page, "@DATA@", script_safe(json));
  return page;
}

}  // namespace sluice
