// launch/text_codec.h -- text to tokens and back, for whatever a model was trained on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace sluice {
struct DataConfig;  // data/loader/config.h
}

namespace sluice::launch {

struct TextCodec {
  // With what a document begins with. Of a task: its words, separated by blanks.
  std::function<std::vector<int32_t>(const std::string& prompt)> encode;
  std::function<std::string(int32_t id)> text;
  std::vector<int32_t> stop_tokens;  // that end a document
};
TextCodec text_codec(const DataConfig& data);

}  // namespace sluice::launch
