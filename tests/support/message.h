// tests/support/message.h -- what an error says.
#pragma once

#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <vector>

#include "kernels/base/check.h"

namespace sluice::test {

// The message of the Error that f throws, printed too, so that people can judge how it reads.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    std::cout << "  message: " << e.what() << "\n";
    return e.what();
  }
  return "no error";
}

inline void expect_contains(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "no \"" << part << "\" in: " << message;
}

// f throws an Error that says `part`.
template <class F>
void expect_message(F f, const std::string& part) {
  expect_contains(error_of(f), {part});
}

}  // namespace sluice::test
