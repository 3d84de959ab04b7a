// trainer/report/page.h -- the files of trainer/report/page, built into the program.
#pragma once

namespace sluice {

extern const char* const kReportPage;    // page.html, with @STYLE@, @DATA@ and @SCRIPT@
extern const char* const kReportStyle;   // *.css
extern const char* const kReportScript;  // *.js, in the order of CMakeLists.txt

}  // namespace sluice
