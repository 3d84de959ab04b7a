// launch/run_commands.cpp -- train, config, generate.
#include <fmt/format.h>

#include <algorithm>

#include <cstdio>
#include <thread>

#include "configs/schema.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/commands.h"
#include "model/generate/generator.h"
#include "trainer/loop/model_file.h"
#include "trainer/loop/trainer.h"

namespace sluice::launch {

static Config load(const ConfigSource& c) {
  return with_code(ExitCode::config, [&] { return config::load<Config>(c.file, c.set); });
}

void print_config(const ConfigSource& c) {
  fmt::print("{}", config::print(load(c)));
}

int train(const ConfigSource& c, bool fresh) {
  Trainer trainer(load(c), fresh ? Trainer::Folder::fresh : Trainer::Folder::any);
  return int(trainer.run());
}

void generate(const Generate& c) {
  const LoadedModel m = load_model(c.run);
  const Tokenizer tokenizer = Tokenizer::load(m.config.data.tokenizer);
  std::vector<int32_t> prompt{tokenizer.end_of_text()};  // a document begins with it
  for (const int32_t id : tokenizer.encode(c.prompt)) prompt.push_back(id);

  ThreadPool threads(c.threads > 0 ? int(c.threads)
                                   : int(std::max(1u, std::thread::hardware_concurrency())));
  const Context ctx{.threads = &threads};
  Generator generator(ctx, *m.params, *m.lm, DType::f32,
                      {.max_tokens = int64_t(prompt.size()) + c.max_new_tokens});
  fmt::print("{}", c.prompt);
  std::fflush(stdout);
  sluice::generate(generator, prompt,
                   {.max_new_tokens = c.max_new_tokens,
                    .temperature = c.temperature,
                    .seed = c.seed,
                    .stop_token = tokenizer.end_of_text()},
                   [&](int32_t id) {
                     fmt::print("{}", tokenizer.token_bytes(id));
                     std::fflush(stdout);
                   });
  fmt::print("\n");
}

}  // namespace sluice::launch
