// data/tokenizer/byte_alphabet.h -- the printable characters that stand for bytes in
// tokenizer.json.
//
// GPT-2's map: visible Latin-1 bytes are themselves, the other 68 are U+0100 on, in order.
#pragma once

#include <string>
#include <string_view>

namespace sluice {

std::string bytes_to_alphabet(std::string_view bytes);
// Throws for a character that stands for no byte; `what` names the place in the message.
std::string alphabet_to_bytes(std::string_view text, const std::string& what);

}  // namespace sluice
