// model/generate/text_stream.h -- bytes of tokens as text that may be shown: up to a stop string,
// in whole characters.
//
// Held back is just what may still become a stop string, and a UTF-8 character that is not
// complete; everything else is handed out at once, and once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice {

class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stop_strings);  // none of them empty

  // What may be shown now that these bytes have come. Nothing more after a stop string.
  std::string push(std::string_view bytes);
  // What is left when the text ends otherwise. Half a character becomes U+FFFD.
  std::string finish();

  bool stopped() const { return stopped_; }  // the earliest stop string has come; it is not shown

 private:
  std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace sluice
