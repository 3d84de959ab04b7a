// launch/synthesize_command.cpp -- examples of a task as JSON lines: to look at, and for other
// tools.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "data/tasks/task.h"
#include "kernels/base/check.h"
#include "launch/commands.h"

namespace sluice::launch {

void synthesize(const Synthesize& c) {
  const auto config = config::load_string<TaskConfig>("kind: " + c.kind, "TASK", c.set);
  const std::unique_ptr<Task> task = make_task(config, c.seq_len_tokens);
  const std::vector<std::string> words = task_words(config);
  const uint64_t key = c.validation ? validation_examples_key() : train_examples_key(c.seed);
  std::ofstream out(c.out);
  for (int64_t i = 0; i < c.examples; ++i) {
    const TaskExample example = task->example(key, i);
    out << nlohmann::ordered_json{{"index", i},
                                  {"text", to_text(words, example.tokens)},
                                  {"tokens", example.tokens},
                                  {"answer", example.answer}}
        << "\n";
  }
  out.close();
  SLUICE_CHECK(out, c.out, ": ", std::strerror(errno));
  const TaskFacts& facts = task->facts();
  fmt::print(
      "{}: {} examples of {} tokens, of which {} are answers; vocabulary {}, chance {:.4f}\n",
      c.out, c.examples, facts.tokens + 1, facts.answers, words.size(), facts.chance);
}

}  // namespace sluice::launch
