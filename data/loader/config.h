// data/loader/config.h -- the `data:` section of a config.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/tasks/config.h"

namespace sluice {

struct DataSource {
  std::string path;
  double weight = 1;       // of the rows, relative to the other sources
  int64_t max_epochs = 1;  // running out is an error, announced before step 1

  template <class V>
  void visit(V& v) {
    v("path", path, "a token shard", [](const std::string& s) { return !s.empty(); });
    v("weight", weight, "a number above 0", [](double x) { return x > 0; });
    v("max_epochs", max_epochs, "a count above 0", [](int64_t x) { return x > 0; });
  }
};

struct DataConfig {
  int64_t seed = 1;  // of the order of the data
  std::string tokenizer = "tokenizer.json";
  std::vector<DataSource> train;
  std::map<std::string, std::string> validation;  // named sets, each reported
  int64_t seq_len_tokens = 512;
  std::string packing = "concatenate";  // best_fit: only documents longer than a row are cut
  std::optional<TaskConfig> task;       // instead of tokenizer, train, validation, packing

  template <class V>
  void visit(V& v) {
    v("seed", seed, "a number of at least 0", [](int64_t x) { return x >= 0; });
    v("tokenizer", tokenizer, "a tokenizer.json", [](const std::string& s) { return !s.empty(); });
    v.list("train", train, "a list of {path, weight, max_epochs}");
    v.map("validation", validation, "names, each with a token shard");
    v("seq_len_tokens", seq_len_tokens, "a count above 0", [](int64_t x) { return x > 0; });
    v("packing", packing, "concatenate or best_fit",
      [](const std::string& s) { return s == "concatenate" || s == "best_fit"; });
    v.optional_section("task", task);
  }
  std::vector<std::pair<std::string, std::string>> problems() const {
    if (!task) return {};
    std::vector<std::pair<std::string, std::string>> found;
    const char* expected = "expected none beside data.task, whose rows are not of text";
    if (tokenizer != DataConfig{}.tokenizer) found.emplace_back("tokenizer", expected);
    if (packing != DataConfig{}.packing) found.emplace_back("packing", expected);
    if (!train.empty()) found.emplace_back("train", expected);
    if (!validation.empty()) found.emplace_back("validation", expected);
    return found;
  }
};

}  // namespace sluice
