// launch/export_command.cpp -- `sluice export` and `sluice import`.
#include <fmt/format.h>

#include "launch/commands.h"
#include "launch/progress.h"
#include "trainer/export/export.h"
#include "trainer/export/import.h"

namespace sluice::launch {

void export_model(const Export& c) {
  Exported done;
  {
    Progress bar("export");
    done = export_checkpoint(c.checkpoint, c.out,
                             {.dtype = c.dtype == "f32" ? DType::f32 : DType::bf16,
                              .engines = c.engines,
                              .context_tokens = c.context_tokens,
                              .max_shard_bytes = c.max_shard_mib << 20},
                             [&](int64_t bytes, int64_t all) { bar.show(bytes, all, bytes); });
  }
  for (const std::string& s : done.skipped) fmt::print("skipped  {}\n", s);
  for (const std::string& s : done.notes) fmt::print("note     {}\n", s);
  fmt::print("{}: {} as {}, {} tensors, {:.1f} MiB\n", c.out, done.checkpoint, done.architecture,
             done.tensors, double(done.bytes) / (1 << 20));
}

void import_model(const Import& c) {
  const Imported done = import_folder(c.folder, c.out);
  fmt::print("{}{}: {:.1f}M parameters from {}{}\n", done.model, done.checkpoint,
             double(done.parameters) / 1e6, c.folder, done.tokenizer ? ", with its tokenizer" : "");
}

}  // namespace sluice::launch
