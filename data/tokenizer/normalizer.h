// data/tokenizer/normalizer.h -- Unicode's normal form C, as `tokenizers` makes it.
#pragma once

#include <string>
#include <string_view>

namespace sluice {

// `text`, which is valid UTF-8, in NFC: itself where it is that already, else what is put into
// `out`. Characters that Unicode 9 did not have stay as and where they are (unicode.h).
std::string_view nfc(std::string_view text, std::string& out);

}  // namespace sluice
