// launch/text_codec.cpp -- a tokenizer, or the words of a task.
#include "launch/text_codec.h"

#include <map>
#include <memory>
#include <sstream>

#include "data/loader/config.h"
#include "data/tasks/task.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/check.h"

namespace sluice::launch {

static TextCodec task_codec(const TaskConfig& task) {
  const std::vector<std::string> words = task_words(task);
  std::map<std::string, int32_t> ids;
  for (const std::string& w : words) ids.emplace(w, int32_t(ids.size()));
  auto encode = [ids, kind = task.kind](const std::string& prompt) {
    std::vector<int32_t> tokens;
    std::istringstream in(prompt);
    for (std::string word; in >> word;) {
      const auto it = ids.find(word);
      SLUICE_CHECK(it != ids.end(), "\"", word, "\" is no word of the task (", kind, ")");
      tokens.push_back(it->second);
    }
    SLUICE_CHECK(!tokens.empty(), "the model was trained on a task (", kind,
                 "): expected a prompt of its words, as `sluice data synthesize` writes them");
    return tokens;
  };
  return {encode, [words](int32_t id) { return " " + words.at(size_t(id)); }, {}};
}

TextCodec text_codec(const DataConfig& data) {
  if (data.task) return task_codec(*data.task);
  const auto tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(data.tokenizer));
  auto encode = [tokenizer](const std::string& prompt) {
    std::vector<int32_t> tokens{tokenizer->end_of_text()};
    for (const int32_t id : tokenizer->encode(prompt)) tokens.push_back(id);
    return tokens;
  };
  auto text = [tokenizer](int32_t id) { return std::string(tokenizer->token_bytes(id)); };
  return {encode, text, {tokenizer->end_of_text()}};
}

}  // namespace sluice::launch
