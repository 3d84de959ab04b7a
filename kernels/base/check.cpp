// kernels/base/check.cpp -- where every contract violation is worded.
#include "kernels/base/check.h"

namespace sluice {

void fail(const char* file, int line, const char* what, const std::string& detail) {
  throw Error(cat(file, ":", line, ": ", what, ": ", detail));
}

}  // namespace sluice
