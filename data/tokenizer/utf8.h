// data/tokenizer/utf8.h -- which bytes are UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

// Bytes of the character at s[i], 0 if none starts there that UTF-8 allows (no overlong forms, no
// surrogates, nothing above U+10FFFF).
size_t utf8_character(std::string_view s, size_t i);

// How many bytes from s[i] on are valid UTF-8.
size_t utf8_run(std::string_view s, size_t i);

// The code point of the valid character at s[i], which has n bytes.
char32_t utf8_code_point(std::string_view s, size_t i, size_t n);

}  // namespace sluice
