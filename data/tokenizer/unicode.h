// data/tokenizer/unicode.h -- where the libraries' Unicode differs from that of `tokenizers` 0.23.
//
// Its regexes know Unicode 16 (Oniguruma 6.9.10), PCRE2 10.42 knows 14; its NFC knows Unicode 9.
// Tables of tests/golden/tokenizer/unicode.py, which also proves them, code point by code point.
#pragma once

#include <string_view>

namespace sluice {

// The members of a general category ("L", "Lu", "Nd", ...) or of the script "Han" that Unicode 14
// lacks, as ranges for a character class of PCRE2. Null: a name that is not known here.
const char* unicode_16_members(std::string_view category);

// A character whose combining class or composition is newer than Unicode 9.
bool newer_than_nfc(char32_t code);

}  // namespace sluice
