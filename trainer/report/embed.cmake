# cmake -DOUT=page.cpp -DFOLDER=page -DFILES="page.html;..." -P embed.cmake
# Writes page.html, the .css and the .js files as string literals (page.h). A literal may be 64 KiB long where
# compilers are strict, so each file is one of its own; neighbours are joined by the compiler.
set(text "#include \"trainer/report/page.h\"\n\nnamespace sluice {\n\n")
foreach(kind "html:kReportPage" "css:kReportStyle" "js:kReportScript")
  string(REGEX REPLACE ":.*" "" extension ${kind})
  string(REGEX REPLACE ".*:" "" name ${kind})
  string(APPEND text "const char* const ${name} =")
  foreach(file ${FILES})
    if(file MATCHES "\\.${extension}$")
      file(READ ${FOLDER}/${file} content)
      string(APPEND text "\n    R\"__file__(${content})__file__\"")
    endif()
  endforeach()
  string(APPEND text ";\n")
endforeach()
file(WRITE ${OUT} "${text}\n}  // namespace sluice\n")
