// launch/batches_command.cpp -- `sluice data batches`: the rows of given steps, to look into a
// spike of the loss or to feed another trainer with the same data.
#include <fmt/format.h>

#include <vector>

#include "data/loader/loader.h"
#include "launch/commands.h"
#include "launch/progress.h"
#include "model/export/safetensors.h"
#include "trainer/loop/exit_code.h"
#include "trainer/loop/stages.h"

namespace sluice::launch {

// One file's tensors; rows are micro-batches in the order in which a single rank trains on them.
struct BatchFile {
  BatchFile(const std::string& path, int64_t rows, const MicroBatch& shape)
      : writer(path, {entry("tokens", rows, shape.tokens), entry("targets", rows, shape.targets),
                      entry("cu_seqlens", rows, shape.cu_seqlens)}) {}
  static SafetensorsEntry entry(const char* name, int64_t rows, const Tensor& t) {
    return {.name = name, .dtype = t.dtype, .shape = {rows, t.numel()}};
  }
  void add(const MicroBatch& b) {
    writer.write_slice("tokens", row * b.tokens.numel(), b.tokens);
    writer.write_slice("targets", row * b.targets.numel(), b.targets);
    writer.write_slice("cu_seqlens", row * b.cu_seqlens.numel(), b.cu_seqlens);
    ++row;
  }
  SafetensorsWriter writer;
  int64_t row = 0;
};

void batches(const Batches& c) {
  const Config config = load(c.config);
  auto need = [](bool ok, const std::string& what) {
    if (!ok) throw ExitError(ExitCode::config, what);
  };
  need(c.begin < c.end,
       fmt::format("--begin: expected a step below --end ({}), got {}", c.end, c.begin));
  need(c.end <= config.train.steps,
       fmt::format("--end: expected at most train.steps ({}), got {}", config.train.steps, c.end));
  for (const DataPart& part : data_parts(config)) {
    if (c.begin < part.begin || c.begin >= part.end) continue;
    need(c.end <= part.end,
         fmt::format("--end: expected at most {}, where a stage brings other rows, got {}",
                     part.end, c.end));
    Loader loader(part.data, config.train.batch_tokens, config.train.micro_batch_tokens);
    MicroBatchBuffer buffer = loader.make_buffer();
    const int64_t steps = c.end - c.begin;
    BatchFile file(c.out, steps * loader.micro_batches(), buffer.batch());
    Progress bar("steps");
    for (int64_t step = c.begin; step < c.end; ++step) {
      for (int64_t m = 0; m < loader.micro_batches(); ++m) {
        loader.load(step - part.begin, m, buffer.batch());
        file.add(buffer.batch());
      }
      bar.show(step - c.begin + 1, steps);
    }
    file.writer.finish();
    fmt::print("{}: steps {} to {}, {} micro-batches of {} tokens\n", c.out, c.begin, c.end - 1,
               file.row, config.train.micro_batch_tokens);
  }
}

}  // namespace sluice::launch
