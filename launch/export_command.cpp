// launch/export_command.cpp -- `sluice export` and `sluice import`.
#include <fmt/format.h>

#include <map>

#include "launch/commands.h"
#include "launch/progress.h"
#include "trainer/export/export.h"
#include "trainer/export/export_gguf.h"
#include "trainer/export/import.h"

namespace sluice::launch {

namespace {

void show(const Export& c, const Exported& done) {
  for (const std::string& s : done.skipped) fmt::print("skipped  {}\n", s);
  for (const std::string& s : done.notes) fmt::print("note     {}\n", s);
  fmt::print("{}: {} as {}, {} tensors, {:.1f} MiB\n", c.out, done.checkpoint, done.architecture,
             done.tensors, double(done.bytes) / (1 << 20));
}

void export_one_file(const Export& c) {
  const std::map<std::string, GgufType> types{{"f32", GgufType::f32},
                                              {"f16", GgufType::f16},
                                              {"bf16", GgufType::bf16},
                                              {"q8_0", GgufType::q8_0}};
  for (const std::string& engine : c.engines)
    SLUICE_CHECK(engine == "llama.cpp", "a .gguf file is for llama.cpp, not for ", engine,
                 "; expected a folder's name");
  Exported done;
  {
    Progress bar("export");
    done = export_gguf(c.checkpoint, c.out,
                       {.type = types.at(c.dtype), .context_tokens = c.context_tokens},
                       [&](int64_t bytes, int64_t all) { bar.show(bytes, all, bytes); });
  }
  show(c, done);
}

}  // namespace

void export_model(const Export& c) {
  if (c.out.ends_with(".gguf")) return export_one_file(c);
  SLUICE_CHECK(c.dtype == "f32" || c.dtype == "bf16", "--dtype ", c.dtype,
               " is for .gguf files; a folder has bf16 or f32");
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
  show(c, done);
}

void import_model(const Import& c) {
  const Imported done = import_folder(c.folder, c.out);
  fmt::print("{}{}: {:.1f}M parameters from {}{}\n", done.model, done.checkpoint,
             double(done.parameters) / 1e6, c.folder, done.tokenizer ? ", with its tokenizer" : "");
}

}  // namespace sluice::launch
